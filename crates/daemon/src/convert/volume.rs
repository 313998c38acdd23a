//! Volumes.

use rorqual_api::volume::{CreateRequest, UsageData, Volume};
use rorqual_engine::{VolumeSpec, VolumeView};

use crate::convert::mounts::volume_name;
use crate::convert::non_empty;
use crate::error::{BadRequest, unsupported};

/// Reads a request to make a volume.
pub(crate) fn volume_spec(request: CreateRequest) -> Result<VolumeSpec, BadRequest> {
    let CreateRequest { cluster_volume_spec, driver, driver_opts, labels, name } = request;
    if cluster_volume_spec.is_some() {
        return Err(unsupported("cluster volumes are not supported"));
    }
    let name = non_empty(name).map(|name| volume_name(&name)).transpose()?;
    Ok(VolumeSpec { name, driver: non_empty(driver), options: driver_opts, labels })
}

/// Writes a volume.
pub(crate) fn volume_document(view: &VolumeView) -> Volume {
    let VolumeView { name, driver, scope, mountpoint, created, labels, options, status, usage } =
        view;
    Volume {
        cluster_volume: None,
        created_at: created.clone().unwrap_or_default(),
        driver: driver.clone(),
        labels: (!labels.is_empty()).then(|| labels.clone()),
        mountpoint: mountpoint.to_string_lossy().into_owned(),
        name: name.to_string(),
        options: (!options.is_empty()).then(|| options.clone()),
        scope: scope.clone(),
        status: status.clone(),
        usage_data: usage
            .map(|(size, count)| UsageData { ref_count: count as i64, size: size as i64 }),
    }
}
