//! Functions that every bake file can call.

mod collection;
mod text;

use serde_json::Value;

use crate::eval::{equal, float, number, truth};

/// Arguments of a call.
pub(crate) struct Args<'a> {
    name: &'a str,
    values: &'a [Value],
}

type Outcome = Result<Value, String>;

impl<'a> Args<'a> {
    fn at(&self, index: usize) -> Result<&'a Value, String> {
        let missing =
            || format!("function {:?} needs more than {} arguments", self.name, self.values.len());
        self.values.get(index).ok_or_else(missing)
    }

    fn text(&self, index: usize) -> Result<String, String> {
        crate::eval::text(self.at(index)?).map_err(|why| format!("function {:?}: {why}", self.name))
    }

    fn float(&self, index: usize) -> Result<f64, String> {
        float(self.at(index)?).map_err(|why| format!("function {:?}: {why}", self.name))
    }

    fn whole(&self, index: usize) -> Result<i64, String> {
        let found = self.float(index)?;
        match found.fract() == 0.0 && found.abs() < 9.0e15 {
            true => Ok(found as i64),
            false => Err(format!("function {:?} needs a whole number, not {found}", self.name)),
        }
    }

    fn list(&self, index: usize) -> Result<&'a [Value], String> {
        let found = self.at(index)?;
        let list = found.as_array().map(Vec::as_slice);
        list.ok_or_else(|| format!("function {:?} needs a list, not {found}", self.name))
    }

    fn map(&self, index: usize) -> Result<&'a serde_json::Map<String, Value>, String> {
        let found = self.at(index)?;
        found
            .as_object()
            .ok_or_else(|| format!("function {:?} needs an object, not {found}", self.name))
    }
}

/// Calls a function by its name.
pub(crate) fn call(name: &str, values: &[Value], now: u64) -> Outcome {
    let args = Args { name, values };
    let found = text::call(name, &args, now)
        .or_else(|| collection::call(name, &args))
        .or_else(|| arithmetic(name, &args));
    if let Some(outcome) = found {
        return outcome;
    }
    let elsewhere = [
        "bcrypt",
        "cidrhost",
        "cidrnetmask",
        "cidrsubnet",
        "cidrsubnets",
        "convert",
        "csvdecode",
        "formatdate",
        "formattimestamp",
        "md5",
        "rsadecrypt",
        "semvercmp",
        "timeadd",
        "unixtimestampparse",
        "uuidv4",
        "uuidv5",
    ];
    match elsewhere.contains(&name) {
        true => Err(format!("the function {name:?} of bake files is not available here")),
        false => Err(format!("Call to unknown function; There is no function named {name:?}.")),
    }
}

fn arithmetic(name: &str, args: &Args<'_>) -> Option<Outcome> {
    let two = || Ok::<_, String>((args.float(0)?, args.float(1)?));
    let one = |change: fn(f64) -> f64| args.float(0).map(|value| number(change(value)));
    let compared = |holds: fn(f64, f64) -> bool| two().map(|(a, b)| Value::Bool(holds(a, b)));
    let computed = |combine: fn(f64, f64) -> f64| two().map(|(a, b)| number(combine(a, b)));
    let both = |combine: fn(bool, bool) -> bool| {
        Ok(Value::Bool(combine(truth(args.at(0)?)?, truth(args.at(1)?)?)))
    };
    let extreme = |combine: fn(f64, f64) -> f64| {
        let all = (0..args.values.len()).map(|at| args.float(at)).collect::<Result<Vec<_>, _>>()?;
        let found = all.into_iter().reduce(combine);
        found.map(number).ok_or_else(|| format!("function {name:?} needs a number"))
    };
    Some(match name {
        "absolute" => one(f64::abs),
        "ceil" => one(f64::ceil),
        "floor" => one(f64::floor),
        "int" => one(f64::trunc),
        "negate" => one(|value| -value),
        "signum" => one(|value| if value == 0.0 { 0.0 } else { value.signum() }),
        "add" => computed(|a, b| a + b),
        "subtract" => computed(|a, b| a - b),
        "multiply" => computed(|a, b| a * b),
        "divide" => two().and_then(|(a, b)| match b == 0.0 {
            true => Err("division by zero".to_owned()),
            false => Ok(number(a / b)),
        }),
        "modulo" => computed(|a, b| a % b),
        "pow" => computed(f64::powf),
        "log" => computed(f64::log),
        "max" => extreme(f64::max),
        "min" => extreme(f64::min),
        "greaterthan" => compared(|a, b| a > b),
        "greaterthanorequalto" => compared(|a, b| a >= b),
        "lessthan" => compared(|a, b| a < b),
        "lessthanorequalto" => compared(|a, b| a <= b),
        "and" => both(|a, b| a && b),
        "or" => both(|a, b| a || b),
        "not" => args.at(0).and_then(truth).map(|value| Value::Bool(!value)),
        "equal" => args.at(0).and_then(|a| Ok(Value::Bool(equal(a, args.at(1)?)))),
        "notequal" => args.at(0).and_then(|a| Ok(Value::Bool(!equal(a, args.at(1)?)))),
        _ => return None,
    })
}
