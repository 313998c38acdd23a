//! Logins of registries that are lent to a build: asked for by the builder when it needs one, and not before.

use async_trait::async_trait;
use rorqual_build::Login;
use rorqual_buildkit::CredentialSource;
use rorqual_client::config::Config;
use rorqual_client::credentials;

/// The logins that this client keeps.
pub(super) struct Logins(pub(super) Config);

#[async_trait]
impl CredentialSource for Logins {
    async fn credentials(&self, host: &str) -> Result<Option<Login>, String> {
        let (config, host) = (self.0.clone(), host.to_owned());
        // A credential helper is a program that may wait for a person.
        let found = tokio::task::spawn_blocking(move || credentials::find(&config, &host)).await;
        let found = found.map_err(|error| error.to_string())?;
        let found = found.map_err(|error| rorqual_core::full_message(&error))?;
        // An identity token goes without a name.
        Ok(found.map(|found| Login { username: found.username, secret: found.secret }))
    }
}
