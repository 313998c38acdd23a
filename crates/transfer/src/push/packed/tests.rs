//! Whose packed layers are used for images made here.

use super::*;

#[test]
fn forms_of_other_images_are_used_where_they_may_be() {
    let digest = |byte: u8| Digest::sha256([byte; 32]);
    for (kind, expected) in [
        ("application/vnd.oci.image.layer.v1.tar+gzip", Some(media_type::OCI_LAYER_GZIP)),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(media_type::OCI_LAYER_GZIP)),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        ),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", None),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", None),
        ("application/vnd.oci.image.layer.v1.tar", None),
    ] {
        let layer = Descriptor::new(kind, digest(1), 10);
        let found = form(&layer, &DiffId(digest(2)));
        assert_eq!(found.as_ref().map(|form| form.media_type.as_str()), expected, "{kind}");
        assert_eq!(form(&layer, &DiffId(digest(1))), None, "a plain layer has no packed form");
    }
}
