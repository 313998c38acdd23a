//! What builds take from elsewhere and hand on: caches, annotations, statements, images of several platforms, layouts.

use std::fs;
use std::path::{Path, PathBuf};

use rorqual_testkit::{Host, TestResult};
use serde_json::Value as Json;

use crate::build_client::{build, context, registry};
use crate::scenario;

/// Removes all that builds have left, so that the daemon is as another one.
fn forget(host: &Host, image: &str) -> TestResult {
    host.cli(["rmi", "-f", image])?.ok()?;
    host.cli(["builder", "prune", "-a", "-f"])?.ok()?;
    Ok(())
}

const ONCE: &str = "FROM busybox AS make\nRUN echo it was $((40+2)); echo same > /id\nFROM busybox\nCOPY --from=make /id /id\nRUN cat /proc/sys/kernel/random/uuid > /own\n";

#[test]
fn caches_go_to_directories_registries_and_images_and_come_back() -> TestResult {
    scenario(|host| {
        let _registry = registry(host)?;
        let dir = context(&[("Dockerfile", ONCE)])?;
        let local = host.folder().join("cache").display().to_string();
        let cases = [
            (
                format!("type=local,dest={local},mode=max"),
                format!("type=local,src={local}"),
                "127.0.0.1:5000/a:1",
            ),
            (
                "type=registry,ref=127.0.0.1:5000/cache:1,mode=max".to_owned(),
                "127.0.0.1:5000/cache:1".to_owned(),
                "127.0.0.1:5000/b:1",
            ),
            ("type=inline".to_owned(), "127.0.0.1:5000/c:1".to_owned(), "127.0.0.1:5000/c:1"),
        ];
        for (to, from, tag) in cases {
            let own = || host.cli(["run", "--rm", tag, "cat", "/own"])?.ok();
            build(host, dir.path(), &["--push", "-t", tag, "--cache-to", &to])?.ok()?;
            let before = own()?;
            forget(host, tag)?;
            let built = build(host, dir.path(), &["-t", tag, "--cache-from", &from])?;
            let built = built.exits_with(0)?;
            assert_eq!(own()?, before, "{to}: {}", built.stderr);
            // What only leads to the result does not run either.
            assert!(!built.stderr.contains("it was 42"), "{to}: {}", built.stderr);
            forget(host, tag)?;
        }
        // What cannot be read is left out with a word.
        let flags = ["-t", "x:1", "--cache-from", "127.0.0.1:5000/none:1"];
        let built = build(host, dir.path(), &flags)?.exits_with(0)?;
        assert!(built.stderr.contains("importing cache manifest"), "{}", built.stderr);
        build(host, dir.path(), &["--cache-from", "type=local,src=/nowhere"])?.ok()?;
        for to in ["type=s3,bucket=x", "type=local,dest=x,compression=estargz"] {
            build(host, dir.path(), &["--cache-to", to])?
                .exits_with(1)?
                .complains("this builder")?;
        }
        Ok(())
    })
}

#[test]
fn cache_mounts_travel_with_a_cache_that_says_so() -> TestResult {
    scenario(|host| {
        let local = host.folder().join("cache").display().to_string();
        let dir = context(&[(
            "Dockerfile",
            "FROM busybox\nRUN --mount=type=cache,target=/c echo kept > /c/a; ln -s a /c/b\n",
        )])?;
        let to = format!("type=local,dest={local},mode=max,cache-mounts=true");
        build(host, dir.path(), &["-t", "x:1", "--cache-to", &to])?.ok()?;
        forget(host, "x:1")?;
        let next = "FROM busybox\nRUN --mount=type=cache,target=/c cat /c/b > /x\n";
        fs::write(dir.path().join("Dockerfile"), next)?;
        let from = format!("type=local,src={local}");
        build(host, dir.path(), &["-t", "x:1", "--cache-from", &from])?.ok()?;
        host.cli(["run", "--rm", "x:1", "cat", "/x"])?.prints("kept")?;
        Ok(())
    })
}

/// An image as an OCI layout.
struct Layout(PathBuf);

impl Layout {
    fn unpack(archive: &Path, to: PathBuf) -> TestResult<Self> {
        tar::Archive::new(fs::File::open(archive)?).unpack(&to)?;
        Ok(Self(to))
    }

    fn blob(&self, descriptor: &Json) -> TestResult<Json> {
        let digest = descriptor["digest"].as_str().ok_or("no digest")?.replace(':', "/");
        Ok(serde_json::from_slice(&fs::read(self.0.join("blobs").join(digest))?)?)
    }

    fn target(&self) -> TestResult<Json> {
        let index: Json = serde_json::from_slice(&fs::read(self.0.join("index.json"))?)?;
        Ok(index["manifests"][0].clone())
    }
}

#[test]
fn images_say_how_they_were_made_and_of_what() -> TestResult {
    scenario(|host| {
        let dir = context(&[
            (
                "Dockerfile",
                "FROM busybox\nARG NAME\nRUN --mount=type=secret,id=token cat /run/secrets/token > /dev/null; echo $NAME > /n\nCOPY status /var/lib/dpkg/status\n",
            ),
            (
                "status",
                "Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\n",
            ),
            ("token", "very-secret-word"),
        ])?;
        let archive = host.folder().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let secret = format!("id=token,src={}", dir.path().join("token").display());
        let flags = format!(
            "-t said:1 -o {output} --secret {secret} --build-arg NAME=given --provenance mode=max --sbom true \
             --annotation a=one --annotation index:b=two --annotation manifest-descriptor:c=three \
             --annotation index-descriptor:d=four"
        );
        let flags = flags.split(' ').collect::<Vec<_>>();
        build(host, dir.path(), &flags)?.ok()?;
        let layout = Layout::unpack(&archive, host.folder().join("layout"))?;
        let target = layout.target()?;
        assert_eq!(target["annotations"]["d"], "four", "{target}");
        let index = layout.blob(&target)?;
        assert_eq!(index["annotations"]["b"], "two", "{index}");
        let (image, said) = (&index["manifests"][0], &index["manifests"][1]);
        assert_eq!(image["annotations"]["c"], "three");
        assert_eq!(layout.blob(image)?["annotations"]["a"], "one");
        assert_eq!(said["annotations"]["vnd.docker.reference.digest"], image["digest"]);
        let statements = layout.blob(said)?;
        let kinds = statements["layers"].as_array().ok_or("no statements")?.iter();
        let kinds = kinds.map(|one| &one["annotations"]["in-toto.io/predicate-type"]);
        let expected = ["https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        let provenance = layout.blob(&statements["layers"][0])?;
        let text = provenance.to_string();
        assert!(
            text.contains("\"build-arg:NAME\":\"given\"") && text.contains("\"id\":\"token\""),
            "{text}"
        );
        assert!(!text.contains("very-secret-word"), "{text}");
        let packages = layout.blob(&statements["layers"][1])?;
        assert_eq!(packages["predicate"]["packages"][1]["name"], "bash", "{packages}");
        // It can be loaded, and run.
        host.cli(["load", "-q", "-i", &archive.display().to_string()])?.ok()?;
        host.cli(["run", "--rm", "said:1", "cat", "/n"])?.prints("given")?;

        let least = format!(
            "-t said:2 -o {output} --secret {secret} --build-arg NAME=given --provenance true"
        );
        let least = least.split(' ').collect::<Vec<_>>();
        build(host, dir.path(), &least)?.ok()?;
        let layout = Layout::unpack(&archive, host.folder().join("least"))?;
        let index = layout.blob(&layout.target()?)?;
        let statements = layout.blob(&index["manifests"][1])?;
        assert!(!layout.blob(&statements["layers"][0])?.to_string().contains("given"));

        let files = host.folder().join("files");
        let output = files.display().to_string();
        build(host, dir.path(), &["-o", &output, "--secret", &secret, "--sbom", "true"])?.ok()?;
        assert!(fs::read_to_string(files.join("sbom.spdx.json"))?.contains("pkg:deb/"));
        for (flags, text) in [
            (
                &["--annotation", "index:b=two"][..],
                "index annotations not supported for single platform",
            ),
            (&["--sbom", "generator=example.com/x"], "example.com/x"),
            (&["--attest", "type=other"], "\"other\""),
        ] {
            let flags = [&["-t", "said:3", "--secret", &secret][..], flags].concat();
            build(host, dir.path(), &flags)?.exits_with(1)?.complains(text)?;
        }
        Ok(())
    })
}

#[test]
fn one_build_makes_images_for_several_platforms() -> TestResult {
    scenario(|host| {
        let dir = context(&[
            (
                "Dockerfile",
                "FROM --platform=$BUILDPLATFORM busybox AS make\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\nFROM scratch\nCOPY --from=make /arch /arch\n",
            ),
            ("foreign", "FROM scratch\nCOPY foreign /bin/x\nRUN [\"/bin/x\"]\n"),
        ])?;
        let archive = host.folder().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        let platforms = ["--platform", "linux/amd64,linux/arm64"];
        build(host, dir.path(), &[&platforms[..], &["-t", "both:1", "-o", &output]].concat())?
            .ok()?;
        let layout = Layout::unpack(&archive, host.folder().join("layout"))?;
        let index = layout.blob(&layout.target()?)?;
        let all = index["manifests"].as_array().ok_or("no index")?;
        let names = all.iter().map(|one| &one["platform"]["architecture"]).collect::<Vec<_>>();
        assert_eq!(names, ["amd64", "arm64"]);
        for one in all {
            let config = layout.blob(&layout.blob(one)?["config"])?;
            assert_eq!(config["architecture"], one["platform"]["architecture"]);
        }
        // In the engine it is one image, from which each is taken.
        build(host, dir.path(), &[&platforms[..], &["-t", "both:1"]].concat())?.ok()?;
        for arch in ["amd64", "arm64"] {
            let platform = format!("linux/{arch}");
            let flags = ["image", "inspect", "--platform", &platform, "-f", "{{.Architecture}}"];
            host.cli(flags.into_iter().chain(["both:1"]))?.prints(arch)?;
        }
        let foreign = dir.path().join("foreign").display().to_string();
        let flags = ["-f", &foreign, "--platform", "linux/s390x"];
        build(host, dir.path(), &flags)?.exits_with(1)?.complains("binfmt_misc")?;
        let files = host.folder().join("files");
        let output = files.display().to_string();
        build(host, dir.path(), &[&platforms[..], &["-o", &output]].concat())?.ok()?;
        for arch in ["amd64", "arm64"] {
            let written = fs::read_to_string(files.join(format!("linux_{arch}/arch")))?;
            assert_eq!(written, format!("{arch}\n"));
        }
        Ok(())
    })
}

#[test]
fn a_layout_of_the_client_is_a_context() -> TestResult {
    scenario(|host| {
        let dir = context(&[("Dockerfile", "FROM busybox\nRUN echo base > /from\n")])?;
        let archive = host.folder().join("image.tar");
        let output = format!("type=oci,dest={}", archive.display());
        build(host, dir.path(), &["-t", "base:1", "-o", &output])?.ok()?;
        let layout = Layout::unpack(&archive, host.folder().join("layout"))?;
        host.cli(["builder", "prune", "-a", "-f"])?.ok()?;
        let text = "FROM base\nRUN cp /from /again\n";
        fs::write(dir.path().join("Dockerfile"), text)?;
        let given = format!("base=oci-layout://{}:1", layout.0.display());
        build(host, dir.path(), &["-t", "next:1", "--build-context", &given])?.ok()?;
        host.cli(["run", "--rm", "next:1", "cat", "/again"])?.prints("base")?;
        let none =
            format!("base=oci-layout://{}:none@sha256:{}", layout.0.display(), "0".repeat(64));
        build(host, dir.path(), &["--build-context", &none])?.exits_with(1)?;
        Ok(())
    })
}
