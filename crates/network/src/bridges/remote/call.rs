//! Calls of plugins from threads that may block.

use std::sync::Arc;
use std::time::Duration;

use rorqual_plugin::{Error as PluginError, Plugins};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::Error;
use crate::bridge::BridgeOptions;

/// LIMIT: a plugin that takes longer fails the container.
const PATIENCE: Duration = Duration::from_secs(30);

/// The plugins of this host, and what their calls run on.
#[derive(Clone, Debug)]
pub struct NetworkPlugins {
    plugins: Arc<Plugins>,
    runtime: Handle,
}

impl NetworkPlugins {
    /// Makes them of a table of plugins; calls run on this runtime, and wait on threads that may block.
    pub const fn new(plugins: Arc<Plugins>, runtime: Handle) -> Self {
        Self { plugins, runtime }
    }
}

/// One plugin as one of the things it does.
///
/// INVARIANT: nobody calls while holding a lock that others wait for: a plugin may take half a minute.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    plugins: NetworkPlugins,
    name: String,
    /// `NetworkDriver`, `IpamDriver`
    subsystem: &'static str,
}

impl Caller {
    /// Names a plugin, without asking whether it is there.
    pub(super) fn new(
        options: &BridgeOptions,
        name: &str,
        subsystem: &'static str,
    ) -> Result<Self, Error> {
        let plugins = options.plugins.clone();
        let plugins = plugins.ok_or_else(|| Error::NoSuchDriver(name.to_owned()))?;
        Ok(Self { plugins, name: name.to_owned(), subsystem })
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
    ) -> Result<A, PluginError> {
        let plugin = self.plugins.plugins.get(&self.name, self.subsystem).await?;
        plugin.call(&format!("{}.{method}", self.subsystem), question, PATIENCE).await
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "networks are made on threads that may block, and only plugins are asked by way of the runtime"
    )]
    fn wait_for<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
    ) -> Result<A, PluginError> {
        self.plugins.runtime.block_on(self.ask(method, question))
    }

    /// Calls a method and waits for its answer.
    pub(super) fn call<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
    ) -> Result<A, Error> {
        self.wait_for(method, question).map_err(refusal)
    }

    /// Calls a method whose answer says nothing.
    pub(super) fn tell(&self, method: &str, question: &Value) -> Result<(), Error> {
        self.call::<Value>(method, question).map(drop)
    }

    /// Calls a method that older plugins do not know; `None` from those.
    pub(super) fn optional<A: DeserializeOwned>(
        &self,
        method: &str,
        question: &Value,
    ) -> Result<Option<A>, Error> {
        match self.wait_for(method, question) {
            Err(error) if error.is_unknown_method() => Ok(None),
            other => other.map(Some).map_err(refusal),
        }
    }

    /// Calls a method that nobody waits for; `then` learns how it went.
    pub(super) fn tell_later(
        &self,
        method: &'static str,
        question: Value,
        then: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let this = self.clone();
        self.plugins.runtime.spawn(async move {
            then(this.ask::<Value>(method, &question).await.map(drop).map_err(refusal));
        });
    }

    /// What the plugin does wrong.
    pub(super) fn wrong(&self, what: &str) -> Error {
        let kind = if self.subsystem == "IpamDriver" { "address" } else { "network" };
        Error::Plugin(format!("{kind} plugin {:?} {what}", self.name))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

fn refusal(error: PluginError) -> Error {
    match error {
        PluginError::NotFound(name) => Error::NoSuchDriver(name),
        // COMPAT: dockerd's words for what a plugin says.
        PluginError::Refused { status: None, message, .. } => {
            Error::Plugin(format!("remote: {message}"))
        }
        other => Error::Plugin(rorqual_core::full_message(&other)),
    }
}
