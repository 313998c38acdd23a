//! The own token service: `GET` as Docker's clients ask, `POST` as OAuth 2 has it.

use std::sync::Arc;

use http::header;
use http::{Method, StatusCode};
use rorqual_http::{Answer, Query, RequestBody};

use crate::app::{App, Exchange, answer as respond};
use crate::auth::token::{Issuer, Wanted};
use crate::auth::{self, Actor};
use crate::error::{Code, Error, Result};

// LIMIT: bytes of a form.
const FORM: usize = 64 << 10;

fn refused(message: &str) -> Error {
    let challenge = "Basic realm=\"token\", charset=\"UTF-8\"".to_owned();
    Error::Unauthorized { message: message.to_owned(), challenge }
}

/// `GET /token`, `POST /token`
pub(crate) async fn answer(
    app: &Arc<App>,
    exchange: &mut Exchange,
    body: RequestBody,
) -> Result<Answer> {
    let Some(issuer) = app.auth.issuer() else {
        return Err(Error::refused(Code::NotFound, "there is no token service here"));
    };
    let (actor, wanted) = match exchange.parts.method {
        Method::GET => by_query(issuer, exchange).await?,
        Method::POST => by_form(issuer, body).await?,
        _ => return Err(Error::refused(Code::Unsupported, "need GET or POST")),
    };
    exchange.actor = actor.clone();
    let issued = issuer.issue(&actor, &wanted)?;
    let text = serde_json::to_string(&issued).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    Ok(Answer::Response(respond(StatusCode::OK, headers, text)))
}

fn scopes(query: &Query) -> Vec<String> {
    query.all("scope").map(str::to_owned).collect()
}

async fn by_query(issuer: &Issuer, exchange: &Exchange) -> Result<(Actor, Wanted)> {
    let query = exchange.query();
    let actor = match auth::basic(&exchange.parts.headers) {
        None if exchange.parts.headers.contains_key(header::AUTHORIZATION) => {
            return Err(refused("the token service takes user and password"));
        }
        // A login names an account; without its password it fails.
        None if query.find("account").is_some_and(|account| !account.is_empty()) => {
            return Err(refused("authentication required"));
        }
        None => Actor::Anonymous,
        // COMPAT: an identity token comes in the place of a password.
        Some((user, token)) if user == "<token>" => {
            issuer.refreshed(&token).ok_or_else(|| refused("the identity token holds no longer"))?
        }
        Some((user, password)) => {
            issuer.user(&user, &password).await?.ok_or_else(|| refused("wrong user or password"))?
        }
    };
    let offline = query.flag("offline_token");
    let service = query.text("service").to_owned();
    Ok((actor, Wanted { service, scopes: scopes(&query), offline }))
}

async fn by_form(issuer: &Issuer, body: RequestBody) -> Result<(Actor, Wanted)> {
    let bytes = body.bytes(FORM).await.map_err(Error::Body)?;
    let form = Query::parse(&String::from_utf8_lossy(&bytes));
    let actor = match form.text("grant_type") {
        "password" => issuer.user(form.text("username"), form.text("password")).await?,
        "refresh_token" => issuer.refreshed(form.text("refresh_token")),
        other => {
            let text = format!("the grant type {other:?} is not supported");
            return Err(Error::refused(Code::Unsupported, text));
        }
    };
    let actor = actor.ok_or_else(|| refused("wrong credentials"))?;
    let offline = form.text("access_type") == "offline";
    let service = form.text("service").to_owned();
    Ok((actor, Wanted { service, scopes: scopes(&form), offline }))
}
