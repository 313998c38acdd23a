use super::*;

fn source() -> Source {
    Source {
        name: "db1".to_owned(),
        hostname: "host1".to_owned(),
        address: "172.17.0.5".to_owned(),
        ports: vec![(80, PortProtocol::Tcp), (81, PortProtocol::Udp)],
        env: vec!["PATH=/bin".to_owned(), "KEY=a=b".to_owned(), "BARE".to_owned()],
    }
}

#[test]
fn a_linked_container_answers_to_its_alias_its_hostname_and_its_name() {
    let lines = ["store:172.17.0.5", "host1:172.17.0.5", "db1:172.17.0.5"];
    assert_eq!(source().hosts_lines("store"), lines);
    assert_eq!(source().hosts_lines("db1"), ["db1:172.17.0.5", "host1:172.17.0.5"]);
}

#[test]
fn variables_tell_address_ports_and_environment() {
    let expected = [
        "MY_DB_NAME=/web/my-db",
        "MY_DB_PORT=tcp://172.17.0.5:80",
        "MY_DB_PORT_80_TCP=tcp://172.17.0.5:80",
        "MY_DB_PORT_80_TCP_ADDR=172.17.0.5",
        "MY_DB_PORT_80_TCP_PORT=80",
        "MY_DB_PORT_80_TCP_PROTO=tcp",
        "MY_DB_PORT_81_UDP=udp://172.17.0.5:81",
        "MY_DB_PORT_81_UDP_ADDR=172.17.0.5",
        "MY_DB_PORT_81_UDP_PORT=81",
        "MY_DB_PORT_81_UDP_PROTO=udp",
        "MY_DB_ENV_KEY=a=b",
    ];
    assert_eq!(source().variables("web", "my-db"), expected);
}
