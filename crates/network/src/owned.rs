//! Namespaces and the user namespace they belong to, which decides what its root may do to them.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rorqual_core::idmap::{IdMap, IdMaps};
use rorqual_sys::{net, userns};

use crate::Error;
use crate::contract::{NamespaceOwner, UserNamespace};
use crate::warm::cannot_make;

/// A network namespace, with its owner where that is not the host's user namespace.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) user: Option<UserNamespace>,
    pub(crate) network: OwnedFd,
}

impl NamespaceOwner {
    /// Makes or opens the user namespace alone; `None` for the host's.
    pub(crate) fn user(&self) -> Result<Option<UserNamespace>, Error> {
        match self {
            Self::Host => Ok(None),
            Self::New(maps) => {
                let fd = userns::make(&maps.users.to_string(), &maps.groups.to_string());
                Ok(Some(UserNamespace { fd: fd.map_err(cannot_own)?, maps: maps.clone() }))
            }
            Self::Of(pid) => of_process(*pid).map(Some),
        }
    }

    /// Makes a network namespace and runs `work` in it, on a thread that ends with it.
    pub(crate) fn new_network<T: Send>(
        &self,
        work: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send,
    ) -> Result<(Owned, T), Error> {
        let (user, network) = match self {
            Self::Host => {
                let (network, result) = net::new_namespace(work).map_err(cannot_make)?;
                return Ok((Owned { user: None, network }, result));
            }
            Self::New(maps) => {
                let texts = (maps.users.to_string(), maps.groups.to_string());
                let made = userns::make_with_network(&texts.0, &texts.1);
                let (fd, network) = made.map_err(cannot_own)?;
                (UserNamespace { fd, maps: maps.clone() }, network)
            }
            Self::Of(pid) => {
                let user = of_process(*pid)?;
                let network = userns::network_of(user.fd.as_fd()).map_err(cannot_own)?;
                (user, network)
            }
        };
        let result = net::run_in_namespace(network.as_fd(), || work(network.as_fd()));
        let result = result.map_err(cannot_make)?;
        Ok((Owned { user: Some(user), network }, result))
    }
}

fn cannot_own(source: io::Error) -> Error {
    Error::Os { action: "make a user namespace".to_owned(), source: source.into() }
}

fn of_process(pid: i32) -> Result<UserNamespace, Error> {
    let failed = |source: rorqual_core::BoxError| Error::Os {
        action: format!("join the user namespace of process {pid}"),
        source,
    };
    let Some(fd) = userns::of_process(pid).map_err(|error| failed(error.into()))? else {
        return Err(Error::InvalidArgument(
            "cannot share namespaces with a container whose users are those of the host: use --userns=host here, too"
                .to_owned(),
        ));
    };
    let map = |name: &str| -> Result<IdMap, rorqual_core::BoxError> {
        Ok(IdMap::parse(&std::fs::read_to_string(format!("/proc/{pid}/{name}"))?)?)
    };
    let (users, groups) =
        map("uid_map").and_then(|users| Ok((users, map("gid_map")?))).map_err(failed)?;
    Ok(UserNamespace { fd, maps: IdMaps { users, groups } })
}
