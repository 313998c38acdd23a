//! Tokens: JSON web tokens that say what their bearer may do. The own service issues them (ES256) to users of the password
//! file by the policy; or a foreign service does, known by its public keys.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rorqual_store::atomic;
use serde::{Deserialize, Serialize};

use super::htpasswd::Htpasswd;
use super::keys::{Key, Keys};
use super::policy::Policy;
use super::{Access, Actor};
use crate::config::Token;
use crate::error::{Error, Result};

/// What a token says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    #[serde(default)]
    pub(crate) sub: String,
    aud: serde_json::Value,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(default)]
    iat: u64,
    #[serde(default)]
    jti: String,
    #[serde(default)]
    pub(crate) access: Vec<Access>,
    /// In refresh tokens: what [`Htpasswd::generation`] said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<String>,
}

/// Believes tokens.
pub(crate) struct Verifier {
    keys: Keys,
    validation: Validations,
}

struct Validations {
    issuer: String,
    service: String,
}

/// A token that is not believed.
#[derive(Debug)]
pub(crate) struct InvalidToken;

impl Verifier {
    /// Reads a token that is signed by one of our keys, for us, by our issuer, and holds now. May ask the foreign service for its
    /// keys.
    pub(crate) async fn verify(&self, token: &str) -> Result<Claims, InvalidToken> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken)?;
        self.keys.freshen(header.kid.as_deref()).await;
        let claims = self.claims(token, &self.validation.service)?;
        // What buys tokens opens nothing itself.
        if claims.generation.is_some() { Err(InvalidToken) } else { Ok(claims) }
    }

    fn claims(&self, token: &str, audience: &str) -> Result<Claims, InvalidToken> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken)?;
        let keys = self.keys.all();
        let fitting = keys.iter().filter(|key| {
            let fits = match (&key.id, &header.kid) {
                (Some(own), Some(named)) => own == named,
                _ => true,
            };
            // The key decides which algorithms may be, never the token.
            fits && key.algorithms.contains(&header.alg)
        });
        for key in fitting {
            let mut validation = Validation::new(header.alg);
            validation.set_issuer(&[&self.validation.issuer]);
            validation.set_audience(&[audience]);
            validation.validate_nbf = true;
            if let Ok(found) = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation) {
                return Ok(found.claims);
            }
        }
        Err(InvalidToken)
    }

    /// Reads the foreign service's keys again. Blocking.
    pub(crate) fn reload(&self) {
        self.keys.reload();
    }
}

/// Issues tokens.
pub(crate) struct Issuer {
    users: Arc<Htpasswd>,
    policy: Option<Arc<Policy>>,
    key: EncodingKey,
    key_id: String,
    config: Token,
    own: Verifier,
}

/// What somebody asks the token service for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) service: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) offline: bool,
}

/// What the token service answers.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "these are the wire's")]
pub(crate) struct Issued {
    token: String,
    access_token: String,
    expires_in: u64,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// The granted scopes, as OAuth wants it.
    scope: String,
}

// LIMIT: how long a refresh token holds; a changed password ends it at once.
const REFRESH: Duration = Duration::from_secs(90 * 86_400);
// LIMIT: scopes of one token.
const SCOPES: usize = 64;

impl Issuer {
    pub(crate) const fn users(&self) -> &Arc<Htpasswd> {
        &self.users
    }

    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    pub(crate) fn reload(&self) {
        self.users.reload();
        if let Some(policy) = &self.policy {
            policy.reload();
        }
    }

    /// Finds out who asks by password; `None`: nobody with that password.
    pub(crate) async fn user(&self, user: &str, password: &str) -> Result<Option<Actor>> {
        let fits = self.users.verify(user, password).await?;
        Ok(fits.then(|| Actor::User(user.to_owned())))
    }

    /// Finds out who asks by refresh token.
    pub(crate) fn refreshed(&self, token: &str) -> Option<Actor> {
        let claims = self.own.claims(token, &self.refresh_audience()).ok()?;
        let generation = claims.generation?;
        (self.users.generation(&claims.sub)? == generation).then_some(Actor::User(claims.sub))
    }

    fn refresh_audience(&self) -> String {
        format!("{}/refresh", self.config.service)
    }

    /// Issues a token with the part of the wanted rights that the policy grants.
    pub(crate) fn issue(&self, actor: &Actor, wanted: &Wanted) -> Result<Issued> {
        if !wanted.service.is_empty() && wanted.service != self.config.service {
            let text = format!("this is the token service of {:?}", self.config.service);
            return Err(Error::refused(crate::error::Code::Denied, text));
        }
        let scopes = wanted.scopes.iter().flat_map(|scope| scope.split(' ')).take(SCOPES);
        let mut access: Vec<Access> = scopes.filter_map(parse_scope).collect();
        for access in &mut access {
            match (&self.policy, actor) {
                (Some(policy), _) => *access = policy.granted(actor, access),
                (None, Actor::Anonymous) => access.actions.clear(),
                (None, Actor::User(_)) => {}
            }
        }
        access.retain(|access| !access.actions.is_empty());
        let scope = access.iter().map(Access::scope).collect::<Vec<_>>().join(" ");
        let lifetime = self.config.lifetime.0;
        let token = self.sign(actor, &self.config.service, lifetime, access, None)?;
        let refresh_token = match actor {
            Actor::User(user) if wanted.offline => {
                let generation = self.users.generation(user);
                Some(self.sign(actor, &self.refresh_audience(), REFRESH, Vec::new(), generation)?)
            }
            _ => None,
        };
        Ok(Issued {
            access_token: token.clone(),
            token,
            expires_in: lifetime.as_secs(),
            issued_at: rorqual_core::Timestamp::from(SystemTime::now()).to_string(),
            refresh_token,
            scope,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "each is a claim")]
    fn sign(
        &self,
        actor: &Actor,
        audience: &str,
        lifetime: Duration,
        access: Vec<Access>,
        generation: Option<String>,
    ) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).ok();
        let claims = Claims {
            iss: self.config.issuer.clone(),
            sub: actor.name().to_owned(),
            aud: audience.into(),
            exp: now + lifetime.as_secs(),
            nbf: now.saturating_sub(10),
            iat: now,
            jti: format!("{:032x}", u128::from_le_bytes(salt)),
            access,
            generation,
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key)
            .map_err(|error| Error::Storage { action: "sign a token".into(), source: error.into() })
    }
}

/// Reads `repository:team/app:pull,push`; other types are nothing to us.
fn parse_scope(text: &str) -> Option<Access> {
    let (kind, rest) = text.split_once(':')?;
    // The name may have a port in front, so the actions are what is behind the last colon.
    let (name, actions) = rest.rsplit_once(':')?;
    let kind = kind.split('(').next()?;
    let known = match kind {
        "repository" => name.parse::<crate::name::Name>().is_ok(),
        "registry" => name == "catalog",
        _ => false,
    };
    let known_action = |action: &&str| matches!(*action, "pull" | "push" | "delete" | "*");
    let actions = actions.split(',').filter(known_action).map(str::to_owned).collect();
    known.then(|| Access { kind: kind.to_owned(), name: name.to_owned(), actions })
}

/// Makes the verifier, and the issuer of the own service.
pub(crate) fn set_up(
    token: &Token,
    users: Option<Arc<Htpasswd>>,
    policy: Option<Arc<Policy>>,
) -> Result<(Verifier, Option<Issuer>)> {
    let validation =
        || Validations { issuer: token.issuer.clone(), service: token.service.clone() };
    if let Some(source) = &token.public_keys {
        let keys = Keys::foreign(source, token.public_keys_ca.as_deref())?;
        return Ok((Verifier { keys, validation: validation() }, None));
    }
    let (Some(users), Some(file)) = (users, &token.key) else {
        return Err(Error::Config("the own token service needs users and a key".to_owned()));
    };
    let pair = own_key(file)?;
    let public = pair.public_key().as_ref().to_vec();
    let key_id = key_id(&public);
    let verifier = || -> Verifier {
        let key = DecodingKey::from_ec_der(&public);
        let key =
            Key { id: Some(key_id.clone()), algorithms: vec![Algorithm::ES256], decoding: key };
        Verifier { keys: Keys::own(key), validation: validation() }
    };
    let pkcs8 = pair.to_pkcs8v1().map_err(|_| unusable(file, "the key cannot be encoded"))?;
    let key = EncodingKey::from_ec_der(pkcs8.as_ref());
    let (own, verifier) = (verifier(), verifier());
    let config = token.clone();
    Ok((verifier, Some(Issuer { users, policy, key, key_id, config, own })))
}

fn key_id(public: &[u8]) -> String {
    use sha2::Digest as _;
    crate::storage::hex(&sha2::Sha256::digest(public)[..8])
}

pub(super) fn unusable(file: &Path, why: &str) -> Error {
    Error::Config(format!("cannot use the token key {}: {why}", file.display()))
}

/// Reads the signing key (PKCS #8, binary), or makes one.
fn own_key(file: &Path) -> Result<EcdsaKeyPair> {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    match std::fs::read(file) {
        Ok(bytes) => EcdsaKeyPair::from_pkcs8(algorithm, &bytes)
            .map_err(|_| unusable(file, "need a P-256 key as PKCS #8 in DER")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
                .map_err(|_| unusable(file, "no key can be made"))?;
            atomic::write(file, made.as_ref(), 0o600)
                .map_err(|error| unusable(file, &rorqual_core::full_message(&error)))?;
            EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref())
                .map_err(|_| unusable(file, "the new key is unusable"))
        }
        Err(error) => Err(unusable(file, &error.to_string())),
    }
}
