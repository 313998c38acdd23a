//! `RUN`: the program, its mounts, its secrets.

use super::Converter;
use super::dispatch::{Scope, counted};
use super::env::Env;
use super::label::{Layer, shell_of};
use super::stage::{Need, Planned};
use crate::dockerfile::Dialect;
use crate::dockerfile::fault::{did_you_mean, invalid};
use crate::dockerfile::heredoc::Heredoc;
use crate::dockerfile::instruction::{Mount, MountType, RunInstruction, parse_mount};
use crate::dockerfile::options::csv_fields;
use crate::dockerfile::shell::Lexer;
use crate::git_reference::parse_bool;
use crate::{
    CacheSharing, Error, ExecMount, ExecNetwork, ExecOp, ExecSecurity, FileAction, FileOp,
    FileOwner, Input, MountKind, Op, SecretSpec, Vertex, gopath,
};

/// Mounts of a step, and what else they bring.
#[derive(Default)]
struct Mounts {
    files: Vec<ExecMount>,
    special: Vec<ExecMount>,
    secret_env: Vec<(String, SecretSpec)>,
    agents: usize,
}

impl Converter<'_> {
    pub(super) fn run_step(
        &mut self,
        scope: &Scope,
        run: &RunInstruction,
        planned: &Planned,
    ) -> Result<(), Error> {
        let number = scope.number;
        // A program may read any file of its root.
        self.use_paths(number, ["/".to_owned()]);
        let mut mounts = Mounts::default();
        let (mut args, mut shown) = (run.line.args.clone(), planned.command.code.clone());
        if let Some(first) = run.heredocs.first() {
            args = self.heredoc_args(scope, run, &mut mounts)?;
            if Heredoc::parse(&run.line.args.join(" ")).is_some() {
                shown.push_str(&format!(" ({})", summary(&first.content)));
            }
        }
        if run.line.shell {
            let mut with_shell = shell_of(&self.stages[number].image);
            with_shell.push(args.join(" "));
            args = with_shell;
        }
        self.mounts(scope, run, planned, &mut mounts)?;
        let text = self.run_history(number, &args);
        let name = self.run_name(number, &shown, &mounts);
        let exec = self.exec(number, run, args, mounts)?;
        let state = &self.stages[number];
        let vertex = Vertex {
            op: Op::Exec(Box::new(exec)),
            name,
            platform: state.platform.clone().unwrap_or_else(|| self.target.clone()),
            ignore_cache: state.mark.ignore_cache,
            location: Some(scope.place.clone()),
        };
        self.stages[number].output = self.draft.add(vertex)?;
        self.commit(number, &text, Layer::Made);
        Ok(())
    }

    /// The command line of a `RUN` with heredocs.
    fn heredoc_args(
        &mut self,
        scope: &Scope,
        run: &RunInstruction,
        mounts: &mut Mounts,
    ) -> Result<Vec<String>, Error> {
        let line = match (&run.line.args[..], run.line.shell) {
            ([line], true) => line,
            (args, _) => {
                return Err(invalid(format!("parsing produced an invalid run command: {args:?}")));
            }
        };
        let first = &run.heredocs[0];
        if Heredoc::parse(line).is_none() {
            // A command with heredocs: the shell gets all of it as it stands.
            let mut whole = line.clone();
            for heredoc in &run.heredocs {
                whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
            }
            return Ok(vec![whole]);
        }
        let body = first.body();
        if !body.starts_with("#!") {
            return Ok(vec![body]);
        }
        let make = FileAction::MakeFile {
            path: format!("/{}", first.name),
            data: body.into_bytes(),
            mode: 0o755,
            owner: FileOwner::Keep,
        };
        let input = self.inline(scope.number, make)?;
        mounts.files.push(ExecMount {
            target: "/dev/pipes".to_owned(),
            input: Some(input),
            selector: "/".to_owned(),
            output: None,
            readonly: true,
            kind: MountKind::Bind,
        });
        Ok(vec![format!("/dev/pipes/{}", first.name)])
    }

    /// A state with one file or directory that the front end makes itself.
    pub(super) fn inline(&mut self, number: usize, make: FileAction) -> Result<Input, Error> {
        let state = &self.stages[number];
        self.draft.add(Vertex {
            op: Op::File(FileOp { base: Input::Scratch, actions: vec![make] }),
            name: "[internal] preparing inline document".to_owned(),
            platform: state.platform.clone().unwrap_or_else(|| self.target.clone()),
            ignore_cache: false,
            location: None,
        })
    }

    fn exec(
        &self,
        number: usize,
        run: &RunInstruction,
        args: Vec<String>,
        mut mounts: Mounts,
    ) -> Result<ExecOp, Error> {
        let state = &self.stages[number];
        let options = &self.request.options;
        let root = ExecMount {
            target: "/".to_owned(),
            input: Some(state.output),
            selector: "/".to_owned(),
            output: Some(0),
            readonly: false,
            kind: MountKind::Bind,
        };
        // Parents before what is in them.
        mounts.files.sort_by(|a, b| a.target.cmp(&b.target));
        let mut env = state.env.clone();
        let agent = mounts.special.iter().find(|mount| matches!(mount.kind, MountKind::Ssh(_)));
        if let Some(agent) = agent
            && env.get("SSH_AUTH_SOCK").is_none()
        {
            env.set("SSH_AUTH_SOCK", &agent.target);
        }
        let list = std::iter::once(root).chain(mounts.files).chain(mounts.special).collect();
        Ok(ExecOp {
            args,
            env: env.lines(),
            cwd: if state.directory.is_empty() { "/".to_owned() } else { state.directory.clone() },
            user: state.user.clone(),
            hostname: options.hostname.clone(),
            mounts: list,
            network: match &*run.network {
                "none" => ExecNetwork::None,
                "host" => ExecNetwork::Host,
                _ => options.network,
            },
            security: match &*run.security {
                "insecure" => ExecSecurity::Insecure,
                _ => ExecSecurity::Sandbox,
            },
            extra_hosts: options.extra_hosts.clone(),
            proxy_env: self.proxy_env(),
            secret_env: mounts.secret_env,
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            devices: run
                .devices
                .iter()
                .map(|text| device(text))
                .collect::<Result<_, _>>()
                .map_err(invalid)?,
            valid_exit_codes: Vec::new(),
        })
    }

    /// Proxies are known to programs in both spellings.
    fn proxy_env(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for name in ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"] {
            let mut given = self.request.options.build_args.iter();
            let given = given.rfind(|(key, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given {
                lines.push(format!("{}={value}", name.to_uppercase()));
                lines.push(format!("{name}={value}"));
            }
        }
        lines
    }

    fn run_name(&mut self, number: usize, code: &str, mounts: &Mounts) -> String {
        let state = &self.stages[number];
        let mut masked = state.env.clone();
        for (name, _) in &mounts.secret_env {
            masked.set(name, "****");
        }
        let env = state.env.clone();
        let platform = state.platform.clone().unwrap_or_else(|| self.target.clone());
        let lexer = Lexer { raw_quotes: true, skip_unset: true, ..self.lexer };
        let text = Self::shown(code, &masked, lexer);
        self.numbered(number, &text, &platform, Some(&env))
    }

    /// `RUN |2 A=1 B=2 /bin/sh -c make`
    fn run_history(&self, number: usize, args: &[String]) -> String {
        let state = &self.stages[number];
        let mut known = Env::default();
        for (name, value) in &state.args {
            let value = state.env.get(name).or(value.as_deref()).unwrap_or_default();
            known.set(name, value);
        }
        let mut lines = known.lines();
        if self.request.options.dialect == Dialect::Classic {
            // COMPAT: the classic builder tells them by their names.
            lines.sort_unstable();
        }
        let count = (!lines.is_empty()).then(|| format!("|{}", lines.len()));
        let parts: Vec<&str> = count.iter().chain(&lines).chain(args).map(String::as_str).collect();
        format!("RUN {}", parts.join(" "))
    }

    fn mounts(
        &mut self,
        scope: &Scope,
        run: &RunInstruction,
        planned: &Planned,
        mounts: &mut Mounts,
    ) -> Result<(), Error> {
        for (text, source) in run.mounts.iter().zip(&planned.sources) {
            let mut failed = None;
            let parsed = parse_mount(text, |value| {
                self.expand(scope, value).map_err(|error| {
                    let text = error.to_string();
                    failed = Some(error);
                    text
                })
            });
            let mount = parsed.map_err(|why| failed.unwrap_or_else(|| invalid(why)))?;
            match mount.kind {
                MountType::Secret => self.secret(scope, &mount, mounts)?,
                MountType::Ssh => self.agent(scope, &mount, mounts)?,
                MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                    let made = self.file_mount(scope, &mount, *source)?;
                    mounts.files.push(made);
                }
            }
        }
        Ok(())
    }

    fn file_mount(
        &mut self,
        scope: &Scope,
        mount: &Mount,
        source: Option<usize>,
    ) -> Result<ExecMount, Error> {
        let number = scope.number;
        let target = match mount.target.starts_with('/') {
            true => gopath::clean(&mount.target),
            false => self.in_workdir(number, &mount.target).trim_end_matches('/').to_owned(),
        };
        if target == "/" || target.is_empty() || mount.target.is_empty() {
            return Err(invalid(format!("invalid mount target {:?}", mount.target)));
        }
        let mut input = self.mount_input(scope, mount, source, &target)?;
        let mut selector = gopath::clean(&format!("/{}", mount.source));
        if selector == "/" && mount.has_owner() && mount.kind == MountType::Cache {
            input = Some(self.cache_directory(number, mount, input.unwrap_or(Input::Scratch))?);
            "/cache".clone_into(&mut selector);
        }
        let kind = match mount.kind {
            MountType::Tmpfs => MountKind::Tmpfs(mount.size.filter(|size| *size > 0)),
            MountType::Cache => {
                let id = match &*mount.id {
                    "" => gopath::clean(&mount.target),
                    id => id.to_owned(),
                };
                MountKind::Cache {
                    id: format!("{}/{id}", self.request.options.cache_namespace),
                    sharing: match &*mount.sharing {
                        "private" => CacheSharing::Private,
                        "locked" => CacheSharing::Locked,
                        _ => CacheSharing::Shared,
                    },
                }
            }
            _ => MountKind::Bind,
        };
        Ok(ExecMount { target, input, selector, output: None, readonly: mount.readonly, kind })
    }

    fn mount_input(
        &mut self,
        scope: &Scope,
        mount: &Mount,
        source: Option<usize>,
        target: &str,
    ) -> Result<Option<Input>, Error> {
        let used = counted(&mount.source);
        match source {
            _ if mount.kind == MountType::Tmpfs => Ok(None),
            Some(stage) => {
                let Some(state) = self.state_of(stage) else {
                    return Err(invalid(format!(
                        "cannot mount from stage {:?} to {target:?}, stage needs to be defined before current command",
                        mount.from
                    )));
                };
                self.use_paths(stage, [used]);
                Ok(Some(state))
            }
            None if mount.from == "scratch" => Ok(Some(Input::Scratch)),
            None if mount.kind == MountType::Cache => Ok(None),
            None => {
                let platform = self.target.clone();
                let state = self.draft.context(&platform)?;
                self.stages[scope.number].context_paths.insert(used);
                Ok(Some(state))
            }
        }
    }

    /// A fresh cache with an owner and permissions starts from a directory that has them.
    fn cache_directory(
        &mut self,
        number: usize,
        mount: &Mount,
        base: Input,
    ) -> Result<Input, Error> {
        let make = FileAction::MakeDir {
            path: "/cache".to_owned(),
            mode: mount.mode.unwrap_or(0o755),
            parents: false,
            owner: FileOwner::Ids(mount.uid.unwrap_or(0), mount.gid.unwrap_or(0)),
        };
        let state = &self.stages[number];
        self.draft.add(Vertex {
            op: Op::File(FileOp { base, actions: vec![make] }),
            name: "[internal] setting cache mount permissions".to_owned(),
            platform: state.platform.clone().unwrap_or_else(|| self.target.clone()),
            ignore_cache: false,
            location: None,
        })
    }

    fn secret(&mut self, scope: &Scope, mount: &Mount, mounts: &mut Mounts) -> Result<(), Error> {
        let id = [&mount.source, &mount.id].into_iter().find(|text| !text.is_empty());
        let id = id.cloned().unwrap_or_else(|| gopath::base(&mount.target).to_owned());
        let need = Need { required: mount.required, location: scope.place.clone() };
        self.stages[scope.number].outline.secrets.entry(id.clone()).or_insert(need);
        let spec = spec(mount, &id, 0o400);
        if let Some(name) = &mount.env {
            mounts.secret_env.push((name.clone(), spec.clone()));
        }
        let target = match (&*mount.target, &mount.env) {
            ("", Some(_)) => return Ok(()),
            ("", None) => format!("/run/secrets/{}", gopath::base(&id)),
            (target, _) => self.in_workdir(scope.number, target).trim_end_matches('/').to_owned(),
        };
        mounts.special.push(special(target, MountKind::Secret(spec)));
        Ok(())
    }

    fn agent(&mut self, scope: &Scope, mount: &Mount, mounts: &mut Mounts) -> Result<(), Error> {
        if !mount.source.is_empty() {
            return Err(invalid("ssh does not support source"));
        }
        let id = if mount.id.is_empty() { "default" } else { &mount.id };
        let need = Need { required: mount.required, location: scope.place.clone() };
        self.stages[scope.number].outline.ssh.entry(id.to_owned()).or_insert(need);
        let target = match &*mount.target {
            "" => format!("/run/buildkit/ssh_agent.{}", mounts.agents),
            target => self.in_workdir(scope.number, target).trim_end_matches('/').to_owned(),
        };
        mounts.agents += 1;
        mounts.special.push(special(target, MountKind::Ssh(spec(mount, id, 0o600))));
        Ok(())
    }
}

fn spec(mount: &Mount, id: &str, mode: u32) -> SecretSpec {
    SecretSpec {
        id: id.to_owned(),
        uid: mount.uid.unwrap_or(0),
        gid: mount.gid.unwrap_or(0),
        mode: mount.mode.unwrap_or(mode),
        optional: !mount.required,
    }
}

fn special(target: String, kind: MountKind) -> ExecMount {
    ExecMount { target, input: None, selector: "/".to_owned(), output: None, readonly: true, kind }
}

/// The first line of a heredoc, for its name.
fn summary(body: &str) -> String {
    let mut lines = body.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}

/// `name=vendor.com/class=device,required` or the name alone.
fn device(text: &str) -> Result<(String, bool), String> {
    let (mut name, mut required) = (String::new(), false);
    for field in
        csv_fields(text).map_err(|error| format!("failed to parse csv devices: {error}"))?
    {
        match field.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("name") => {
                if !name.is_empty() {
                    return Err(format!("device name already set to {name}"));
                }
                value.clone_into(&mut name);
            }
            Some((key, value)) if key.eq_ignore_ascii_case("required") => {
                required =
                    parse_bool(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            None if field.eq_ignore_ascii_case("required") => required = true,
            _ if name.is_empty() && field.contains('/') => name = field,
            _ => {
                let key = field.split('=').next().unwrap_or(&field);
                let hint = did_you_mean(key, ["name", "required"], false);
                return Err(format!("unexpected key '{key}' in '{field}'{hint}"));
            }
        }
    }
    match name.is_empty() {
        true => Err(format!("device {text:?} has no name")),
        false => Ok((name, required)),
    }
}
