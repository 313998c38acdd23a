//! Names of interfaces.

use super::vlan;

#[test]
fn a_vlan_is_named_by_interface_and_number() {
    assert_eq!(vlan("eth0.10").unwrap(), ("eth0", 10));
    assert_eq!(vlan("a.b.4094").unwrap(), ("a.b", 4094));
    for bad in ["eth0", ".10", "eth0.", "eth0.0", "eth0.4095", "eth0.x", "eth0.-1"] {
        let error = vlan(bad).unwrap_err().to_string();
        assert!(error.starts_with("invalid subinterface vlan name"), "{error}");
    }
}
