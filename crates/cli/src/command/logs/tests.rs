use super::*;

#[test]
fn moments_are_ages_or_times() {
    assert_eq!(moment("since", "").unwrap(), "");
    assert_eq!(moment("since", "0").unwrap(), "0");
    assert_eq!(moment("since", "1700000000.5").unwrap(), "1700000000.5");
    assert_eq!(moment("since", "2013-01-02T13:23:37Z").unwrap(), "1357133017.000000000");
    assert_eq!(moment("since", "2013-01-02T13:23:37.25+01:00").unwrap(), "1357129417.250000000");
    assert!(moment("since", "2013-01-02Z").is_err() || moment("since", "2013-01-02").is_ok());
    let text = "invalid value for \"since\": failed to parse value as time or duration: \"xx\"";
    assert_eq!(moment("since", "xx").unwrap_err().text, text);
}
