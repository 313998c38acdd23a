use super::*;

#[test]
fn what_is_encoded_comes_back() {
    for text in ["", "a b", "größe/*.txt", "100%", "a+b"] {
        assert_eq!(decode(&encode(text)), text);
    }
    assert_eq!(encode("ü x"), "%C3%BC+x");
    assert_eq!(decode("%zz%"), "%zz%");
}
