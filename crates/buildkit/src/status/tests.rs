use super::*;

#[test]
fn a_failing_instruction_comes_with_its_lines() {
    let location =
        Location { file: "Dockerfile".to_owned(), first_line: 2, first_column: 1, last_line: 3 };
    let error =
        Error::Step { command: "/bin/sh -c false".to_owned(), code: 1, location: Some(location) };
    let text = "FROM x\nRUN \\\n false\n";
    let sources = Sources::from([("Dockerfile".to_owned(), text.as_bytes().to_vec())]);
    let status = status(&error, &sources);
    let failure = Failure::new(&status);
    assert_eq!(failure.sources, [("Dockerfile".to_owned(), text.to_owned(), 2, 3)]);
    assert!(failure.message.contains("did not complete successfully: exit code: 1"));
}

#[test]
fn a_location_in_an_unknown_file_is_left_out() {
    let location =
        Location { file: "other".to_owned(), first_line: 2, first_column: 1, last_line: 2 };
    let error = Error::Invalid { message: "no".to_owned(), location: Some(location) };
    let status = status(&error, &Sources::new());
    assert_eq!(status.code(), Code::Unknown);
    assert!(Failure::new(&status).sources.is_empty());
}

#[test]
fn cancellation_is_told_apart() {
    let failure = Failure::new(&status(&Error::Cancelled, &Sources::new()));
    assert!(failure.is_cancelled);
}

#[test]
fn nonsense_in_details_is_ignored() {
    let detail = Any { type_url: SOURCE.to_owned(), value: b"{\"info\":3}".to_vec() };
    let rpc = RpcStatus { code: 2, message: "x".to_owned(), details: vec![detail] };
    let status = Status::with_details(Code::Unknown, "x", rpc.encode_to_vec().into());
    assert!(Failure::new(&status).sources.is_empty());
    let status = Status::with_details(Code::Unknown, "x", vec![0xff; 7].into());
    assert_eq!(Failure::new(&status).message, "x");
}
