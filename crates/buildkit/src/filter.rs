//! Filters of the cache, as containerd writes them: `name==value`, `name~=pattern`, `name!=value`, `name`, with commas
//! for "and"; several filters are alternatives.

use tonic::Status;

use crate::backend::CacheRecord;

/// LIMIT: filters of one question.
const MOST: usize = 64;

/// Makes a test of filters.
///
/// # Errors
///
/// `Invalid` when one has an unknown name.
pub fn cache_filter(
    filters: &[String],
) -> Result<impl Fn(&CacheRecord) -> bool + use<>, rorqual_build::Error> {
    compile(filters).map_err(|status| rorqual_build::Error::Invalid {
        message: status.message().to_owned(),
        location: None,
    })
}

enum Wanted {
    Is(String, String),
    IsNot(String, String),
    Contains(String, String),
    Has(String),
}

/// Makes a test of filters.
pub(crate) fn compile(filters: &[String]) -> Result<impl Fn(&CacheRecord) -> bool + use<>, Status> {
    if filters.len() > MOST {
        return Err(Status::invalid_argument(format!("more than {MOST} filters")));
    }
    // COMPAT: clients send an empty filter for none.
    let filters = filters.iter().filter(|filter| !filter.trim().is_empty());
    let parsed = filters.map(|filter| filter.split(',').map(parse).collect());
    let parsed = parsed.collect::<Result<Vec<Vec<Wanted>>, Status>>()?;
    Ok(move |record: &CacheRecord| {
        parsed.is_empty() || parsed.iter().any(|all| all.iter().all(|one| matches(one, record)))
    })
}

fn parse(text: &str) -> Result<Wanted, Status> {
    let text = text.trim();
    for (operator, make) in [
        ("==", Wanted::Is as fn(String, String) -> Wanted),
        ("!=", Wanted::IsNot),
        ("~=", Wanted::Contains),
    ] {
        if let Some((name, value)) = text.split_once(operator) {
            let value = value.trim_matches('"').to_owned();
            return known(name).map(|name| make(name, value));
        }
    }
    known(text).map(Wanted::Has)
}

fn known(name: &str) -> Result<String, Status> {
    let names = [
        "id",
        "parent",
        "parents",
        "description",
        "inuse",
        "mutable",
        "immutable",
        "type",
        "shared",
        "private",
    ];
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(Status::invalid_argument(format!(
        "unknown filter {name:?}: known are {}",
        names.join(", ")
    )))
}

fn values(name: &str, record: &CacheRecord) -> Vec<String> {
    let flag = |is: bool| vec![is.to_string()];
    match name {
        "id" => vec![record.id.clone()],
        "parent" | "parents" => record.parents.clone(),
        "description" => vec![record.description.clone()],
        "inuse" => flag(record.is_in_use),
        "mutable" => flag(record.is_mutable),
        "immutable" => flag(!record.is_mutable),
        "type" => vec![record.kind.clone()],
        "shared" => flag(record.is_shared),
        _ => flag(!record.is_shared),
    }
}

fn matches(wanted: &Wanted, record: &CacheRecord) -> bool {
    match wanted {
        Wanted::Is(name, value) => values(name, record).contains(value),
        Wanted::IsNot(name, value) => !values(name, record).contains(value),
        Wanted::Contains(name, part) => values(name, record).iter().any(|v| v.contains(part)),
        Wanted::Has(name) => {
            values(name, record).iter().any(|value| !value.is_empty() && value != "false")
        }
    }
}

#[cfg(test)]
mod tests;
