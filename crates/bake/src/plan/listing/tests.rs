use std::collections::BTreeMap;

use super::*;

const FILE: &str = r#"
variable "TAG" {
  default = "latest"
  description = "Tag of the images"
}
variable "N" {
  default = 3
  type = number
}
variable "FLAG" { default = true }
variable "LIST" {
  default = ["a", "b"]
  type = list(string)
}
variable "NONE" {}
variable "OBJ" { default = { a = "x" } }
variable "REQ" {
  type = string
  description = "Required"
}
group "default" {
  targets = ["web", "app"]
  description = "All of it"
}
group "other" { targets = ["app"] }
target "_common" { args = { V = "1" } }
target "app" {
  inherits = ["_common"]
  description = "The application"
}
target "web" {}
target "mx" {
  name = "mx-${v}"
  matrix = { v = ["one", "two"] }
  description = "Matrix ${v}"
}
"#;

fn file() -> [File; 1] {
    [File { name: "docker-bake.hcl".to_owned(), text: FILE.to_owned() }]
}

/// The expectations were printed by buildx 0.29.
#[test]
fn targets_are_listed_as_buildx_does() {
    let listed = list_targets(&file(), &Request::default()).unwrap();
    let expected = serde_json::json!([
        { "name": "app", "description": "The application" },
        { "name": "default", "description": "All of it (app, web)", "group": true },
        { "name": "mx", "description": "mx-one, mx-two", "group": true },
        { "name": "mx-one", "description": "Matrix one" },
        { "name": "mx-two", "description": "Matrix two" },
        { "name": "other", "description": "app", "group": true },
        { "name": "web" },
    ]);
    assert_eq!(serde_json::to_value(listed).unwrap(), expected);
}

/// The expectations were printed by buildx 0.29.
#[test]
fn variables_are_listed_as_buildx_does() {
    let environment = BTreeMap::from([("TAG".to_owned(), "given".to_owned())]);
    let request = Request { environment, ..Request::default() };
    let listed = list_variables(&file(), &request).unwrap();
    let expected = serde_json::json!([
        { "name": "FLAG", "value": "true" },
        { "name": "LIST", "type": "list of string", "value": "[\"a\",\"b\"]" },
        { "name": "N", "type": "number", "value": "3" },
        { "name": "NONE", "value": "" },
        { "name": "OBJ", "value": "{\"a\":\"x\"}" },
        { "name": "REQ", "description": "Required", "type": "string" },
        { "name": "TAG", "description": "Tag of the images", "value": "given" },
    ]);
    assert_eq!(serde_json::to_value(listed).unwrap(), expected);
}
