use super::*;

#[test]
fn a_bind_that_shows_the_daemons_data_follows_the_host() {
    use Propagation::{Private, Rprivate, Rshared, Rslave, Shared, Slave};
    let root = Path::new("/var/lib/rorqual");
    for (source, wanted, expected) in [
        ("/srv", None, Some(Rprivate)),
        ("/var/lib/rorqual2", None, Some(Rprivate)),
        ("/srv", Some(Shared), Some(Shared)),
        ("/", None, Some(Rslave)),
        ("/var/lib", None, Some(Rslave)),
        ("/var/lib/rorqual", None, Some(Rslave)),
        ("/var/lib/rorqual/volumes/x/_data", None, Some(Rslave)),
        ("/var/lib", Some(Rshared), Some(Rshared)),
        ("/var/lib", Some(Rslave), Some(Rslave)),
        ("/var/lib", Some(Slave), None),
        ("/var/lib", Some(Private), None),
        ("/", Some(Rprivate), None),
    ] {
        let got = propagation_of(source, wanted, root);
        match expected {
            Some(expected) => assert_eq!(got.unwrap(), expected, "{source} {wanted:?}"),
            None => {
                let text = got.unwrap_err().to_string();
                assert!(text.contains("when mount source is within the daemon root"), "{text}");
            }
        }
        let unknown = propagation_of(source, wanted, Path::new("")).unwrap();
        assert_eq!(unknown, wanted.unwrap_or(Rprivate));
    }
}
