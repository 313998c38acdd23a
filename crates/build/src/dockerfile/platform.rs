//! Platforms as Dockerfiles and build requests name them.

use rorqual_core::Platform;

/// Drops a variant that says nothing: `linux/arm64/v8` is `linux/arm64`, `linux/amd64/v1` is `linux/amd64`.
pub(super) fn normal(mut platform: Platform) -> Platform {
    let implied = [("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")];
    if implied.contains(&(&*platform.architecture, &*platform.variant)) {
        platform.variant.clear();
    }
    if platform.architecture == "arm" {
        match &*platform.variant {
            "" | "7" => "v7".clone_into(&mut platform.variant),
            "5" | "6" | "8" => platform.variant.insert(0, 'v'),
            _ => {}
        }
    }
    platform
}
