//! Trying credentials.

use std::sync::Arc;

use http::{Method, StatusCode, Uri};

use super::{Access, Call, Session};
use crate::registry::endpoint::Purpose;
use crate::registry::failure::{Failure, Reason};
use crate::registry::token::Scope;
use crate::registry::wire::Wire;
use crate::{Error, RegistryAuth};

/// Checks credentials; returns what to keep instead of the password.
pub(in crate::registry) async fn login(
    wire: &Arc<Wire>,
    server: &str,
    auth: &RegistryAuth,
) -> Result<Option<String>, Error> {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let host = if matches!(host, "" | "index.docker.io" | "registry-1.docker.io") {
        "docker.io"
    } else {
        host
    };
    let repository = format!("{host}/login").parse().map_err(|_| Error::Registry {
        kind: rorqual_core::ErrorKind::InvalidArgument,
        message: format!("{server:?} is not a registry: need host[:port]"),
    })?;
    let mut last = None;
    for endpoint in wire.endpoints(&repository, Purpose::Write).await? {
        let session =
            Session::new(Arc::clone(wire), endpoint, "login", auth.clone(), Scope::default());
        match session.check().await {
            Ok(token) => {
                session.note_reached();
                return Ok(token);
            }
            Err(failure) if session.is_open(&failure) => last = Some(failure),
            Err(failure) => return Err(failure.into()),
        }
    }
    let nobody = || Failure::new(Reason::Unreachable, format!("no way to {host}"));
    Err(last.unwrap_or_else(nobody).into())
}

impl Session {
    async fn check(&self) -> Result<Option<String>, Failure> {
        let text = format!("{}/v2/", self.endpoint.base());
        let uri: Uri = text
            .parse()
            .map_err(|_| Failure::new(Reason::Invalid, format!("{text:?} is not an address")))?;
        let call = Call::new(Method::GET, uri.clone());
        let answer = self.send(&call, &uri, None, true).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.challenged(None, answer.headers()).await?;
            // COMPAT: Go's `Get "…":` stands before what went wrong.
            let named = |failure: Failure| Failure {
                text: format!("Get \"{text}\": {failure}"),
                ..failure
            };
            self.authorization(true).await.map_err(named)?;
            self.call(call).await.map_err(named)?;
        } else if !answer.status().is_success() {
            return Err(self.wire.refusal(answer).await);
        }
        match &*self.access.lock().await {
            Access::Token(_, Some(token)) => Ok(token.refresh.clone()),
            _ => Ok(None),
        }
    }
}
