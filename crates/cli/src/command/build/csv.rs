//! `type=local,dest="a,b"`: fields between commas, as CSV quotes them.

/// Splits at commas outside of quotes; a doubled quote in a quoted field is one.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if is_quoted {
        return Err(format!("{text:?}: a quote is not closed"));
    }
    fields.push(field);
    Ok(fields)
}

/// Splits into names and values.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |field: String| {
        let (name, value) = field
            .split_once('=')
            .ok_or_else(|| format!("invalid field {field:?}, expected key=value"))?;
        Ok((name.trim().to_ascii_lowercase(), value.to_owned()))
    };
    fields(text)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas() {
        let pairs = pairs("type=local,\"dest=a,b\",x=\"y\"");
        let expected = [("type", "local"), ("dest", "a,b"), ("x", "\"y\"")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(pairs, Ok(expected.to_vec()));
        assert_eq!(fields("\"a\"\"b\""), Ok(vec!["a\"b".to_owned()]));
        assert!(fields("\"a").is_err());
        assert!(super::pairs("a").is_err());
    }
}
