//! `COPY` and `ADD`: files of the context, of stages and images, of URLs and git, and heredocs.

use rorqual_core::Digest;

use super::Converter;
use super::dispatch::{Scope, counted};
use super::draft::copy_of;
use super::label::Layer;
use super::stage::Planned;
use crate::dockerfile::fault::invalid;
use crate::dockerfile::instruction::CopyInstruction;
use crate::dockerfile::lint::Rule;
use crate::dockerfile::shell::Lexer;
use crate::ignore::has_wildcard;
use crate::{
    CopyAction, Error, FileAction, FileOp, FileOwner, GitReference, HttpSource, Input, Op, Vertex,
    gopath,
};

impl Converter<'_> {
    pub(super) fn copy(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
        adds: bool,
        planned: &Planned,
    ) -> Result<(), Error> {
        let copy = self.expand_copy(scope, copy)?;
        check_mode(&copy.chmod)?;
        check_checksum(&copy, adds)?;
        let number = scope.number;
        let source = planned.sources.first().copied().flatten();
        let state = &self.stages[number];
        let platform = state.platform.clone().unwrap_or_else(|| self.target.clone());
        let env = state.env.clone();
        let text = Self::shown(&planned.command.code, &env, self.lexer);
        let before = self.stages[number].progress.done;
        let name = self.numbered(number, &text, &platform, Some(&env));
        let actions = self.copy_actions(scope, &copy, adds, (source, &name))?;
        self.count_paths(number, &copy, source);

        let vertex = |op, name: String, ignore_cache| Vertex {
            op,
            name,
            platform: platform.clone(),
            ignore_cache,
            location: Some(scope.place.clone()),
        };
        let base = self.stages[number].output;
        let ignore_cache = self.stages[number].mark.ignore_cache;
        let output = if copy.link && copy.chmod.is_empty() {
            // A layer of its own does not change when what is below does.
            let op = Op::File(FileOp { base: Input::Scratch, actions });
            let files = self.draft.add(vertex(op, name, ignore_cache))?;
            self.stages[number].progress.done = before;
            let name = self.numbered(number, &format!("LINK {text}"), &platform, Some(&env));
            match base {
                Input::Scratch => files,
                Input::Output(_) => {
                    self.draft.add(vertex(Op::Merge(vec![base, files]), name, ignore_cache))?
                }
            }
        } else {
            self.draft.add(vertex(Op::File(FileOp { base, actions }), name, ignore_cache))?
        };
        self.stages[number].output = output;
        self.commit(number, &history(&copy, adds), Layer::Made);
        Ok(())
    }

    fn expand_copy(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
    ) -> Result<CopyInstruction, Error> {
        let mut copy = copy.clone();
        for text in [&mut copy.chown, &mut copy.chmod, &mut copy.checksum, &mut copy.target] {
            *text = self.expand(scope, text)?;
        }
        for text in copy.sources.iter_mut().chain(&mut copy.exclude) {
            *text = self.expand(scope, text)?;
        }
        let raw = Lexer { skip_quotes: true, ..Lexer::new('\\') };
        for heredoc in &mut copy.contents {
            heredoc.content = heredoc.body();
            if heredoc.expand {
                heredoc.content = self.expand_with(scope, raw, &heredoc.content)?.0;
            }
        }
        Ok(copy)
    }

    fn copy_actions(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
        adds: bool,
        (source, name): (Option<usize>, &str),
    ) -> Result<Vec<FileAction>, Error> {
        let target = self.in_workdir(scope.number, &copy.target);
        let mut actions = Vec::new();
        for text in &copy.sources {
            let git = GitReference::parse(text).map_err(|refused| invalid(refused.to_string()))?;
            let mut action = match git.filter(|reference| !reference.like_local) {
                Some(_) if !adds => return Err(invalid("source can't be a git ref for COPY")),
                Some(reference) => self.copy_git(scope, copy, &reference, name)?,
                None if is_url(text) && !adds => {
                    return Err(invalid("source can't be a URL for COPY"));
                }
                None if is_url(text) => self.copy_url(scope, copy, text, name)?,
                None => self.copy_path(scope, copy, adds, (source, text))?,
            };
            target.clone_into(&mut action.target);
            actions.push(FileAction::Copy(Box::new(self.completed(copy, action))));
        }
        for heredoc in &copy.contents {
            let make = FileAction::MakeFile {
                path: format!("/{}", heredoc.name.trim_start_matches('/')),
                data: heredoc.content.clone().into_bytes(),
                mode: 0o644,
                owner: FileOwner::Keep,
            };
            let path = format!("/{}", heredoc.name.trim_start_matches('/'));
            let state = self.inline(scope.number, make)?;
            let action = copy_of(state, path, target.clone());
            actions.push(FileAction::Copy(Box::new(self.completed(copy, action))));
        }
        Ok(actions)
    }

    /// Owner, permissions and what is left out are the same for all sources.
    fn completed(&self, copy: &CopyInstruction, mut action: CopyAction) -> CopyAction {
        if !copy.chown.is_empty() {
            action.owner = FileOwner::Named(copy.chown.clone());
        }
        action.mode = (!copy.chmod.is_empty()).then(|| copy.chmod.clone());
        action.exclude.clone_from(&copy.exclude);
        action.make_parents = true;
        action.created = self.epoch;
        action
    }

    fn copy_git(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
        reference: &GitReference,
        name: &str,
    ) -> Result<CopyAction, Error> {
        if let (Some(flag), Some(query)) = (copy.keep_git_dir, reference.keep_git_dir)
            && flag != query
        {
            return Err(invalid("inconsistent keep-git-dir configuration"));
        }
        let mut source = reference.source(copy.keep_git_dir);
        match (&*copy.checksum, &*reference.checksum) {
            ("", _) => {}
            (flag, "") => source.checksum = Some(flag.to_owned()),
            (flag, query) if flag == query => {}
            (flag, query) => {
                return Err(invalid(format!("checksum mismatch {flag:?} != {query:?}")));
            }
        }
        let state = self.source(scope, Op::Git(source), name)?;
        let contents_only = true;
        Ok(CopyAction { contents_only, ..copy_of(state, "/".to_owned(), String::new()) })
    }

    fn copy_url(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
        url: &str,
        name: &str,
    ) -> Result<CopyAction, Error> {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let path = path.splitn(4, '/').nth(3).unwrap_or_default();
        let file = match gopath::base(path) {
            "." | "/" => "__unnamed__".to_owned(),
            base => base.to_owned(),
        };
        let checksum = match &*copy.checksum {
            "" => None,
            text => Some(text.parse::<Digest>().map_err(|refused| invalid(refused.to_string()))?),
        };
        let source = HttpSource {
            url: url.to_owned(),
            checksum,
            filename: Some(file.clone()),
            ..HttpSource::default()
        };
        let state = self.source(scope, Op::Http(source), name)?;
        let unpack = copy.unpack.unwrap_or(false);
        Ok(CopyAction { unpack, ..copy_of(state, format!("/{file}"), String::new()) })
    }

    fn source(&mut self, scope: &Scope, op: Op, name: &str) -> Result<Input, Error> {
        let state = &self.stages[scope.number];
        self.draft.add(Vertex {
            op,
            name: name.to_owned(),
            platform: state.platform.clone().unwrap_or_else(|| self.target.clone()),
            ignore_cache: false,
            location: Some(scope.place.clone()),
        })
    }

    fn copy_path(
        &mut self,
        scope: &Scope,
        copy: &CopyInstruction,
        adds: bool,
        (source, text): (Option<usize>, &str),
    ) -> Result<CopyAction, Error> {
        let from = match source {
            Some(stage) => self.state_of(stage).ok_or_else(|| {
                let own = &self.stages[scope.number].label;
                invalid(format!(
                    "cannot copy from stage {:?}, it needs to be defined before current stage {own:?}",
                    copy.from
                ))
            })?,
            None => {
                self.check_ignored(scope, text, adds);
                let platform = self.target.clone();
                self.draft.context(&platform)?
            }
        };
        let mut action = CopyAction {
            follow_link: true,
            contents_only: true,
            unpack: copy.unpack.unwrap_or(adds),
            wildcard: true,
            allow_empty_wildcard: true,
            ..copy_of(from, counted(text), String::new())
        };
        if copy.parents {
            let (parent, pattern) = text.split_once("/./").unwrap_or(("/", text));
            let pattern = counted(pattern);
            if !has_wildcard(parent) && !has_wildcard(&pattern) {
                action.required = vec![gopath::join(&counted(parent), &pattern)];
            }
            action.include = vec![pattern.trim_start_matches('/').to_owned()];
            action.source = counted(parent);
        }
        Ok(action)
    }

    /// Notes which paths are needed of where.
    fn count_paths(&mut self, number: usize, copy: &CopyInstruction, source: Option<usize>) {
        let local = copy.sources.iter().filter(|text| {
            !is_url(text) && !matches!(GitReference::parse(text), Ok(Some(git)) if !git.like_local)
        });
        let paths: Vec<String> = local.map(|text| counted(text)).collect();
        match source {
            Some(stage) => self.use_paths(stage, paths),
            None => self.stages[number].context_paths.extend(paths),
        }
    }

    /// Remarks on a source that the ignore file leaves out, as far as one can tell without looking.
    fn check_ignored(&mut self, scope: &Scope, text: &str, adds: bool) {
        if self.ignore.is_empty() || self.ignore.has_exclusions() {
            return;
        }
        let path = gopath::clean(text);
        let path = if path == "/" { "." } else { path.trim_start_matches('/') };
        // The root is left out only when everything is.
        let ignored = match path {
            "." => ["*", "**", "**/*"].iter().any(|all| self.ignore.has_pattern(all)),
            path => self.ignore.matches(path),
        };
        if ignored {
            let verb = if adds { "Add" } else { "Copy" };
            let message =
                format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            self.linter.report(&scope.lint, Rule::CopyIgnoredFile, &scope.place, message);
        }
    }
}

fn is_url(text: &str) -> bool {
    let scheme = text.starts_with("http://") || text.starts_with("https://");
    scheme && !matches!(GitReference::parse(text), Ok(Some(_)) | Err(_))
}

fn check_checksum(copy: &CopyInstruction, adds: bool) -> Result<(), Error> {
    if copy.checksum.is_empty() {
        return Ok(());
    }
    if !adds {
        return Err(invalid("checksum can't be specified for COPY"));
    }
    let [source] = &copy.sources[..] else {
        return Err(invalid("checksum can't be specified for multiple sources"));
    };
    let git = matches!(GitReference::parse(source), Ok(Some(_)));
    if !is_url(source) && !git {
        return Err(invalid("checksum requires HTTP(S) or Git sources"));
    }
    Ok(())
}

/// Permissions: octal, or symbolic as chmod(1) takes them.
fn check_mode(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    let not_octal = || {
        invalid(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    };
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(()),
            _ => Err(not_octal()),
        };
    }
    let clause = |clause: &str| {
        let rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let operators = ['+', '-', '='];
        rest.starts_with(operators)
            && rest.split(operators).skip(1).all(|letters| {
                letters.chars().all(|c| "rwxXst".contains(c)) || matches!(letters, "u" | "g" | "o")
            })
    };
    match text.split(',').all(clause) {
        true => Ok(()),
        false => Err(invalid(format!(
            "invalid chmod parameter: '{text}'. it is neither octal nor a symbolic mode"
        ))),
    }
}

fn history(copy: &CopyInstruction, adds: bool) -> String {
    let mut text = if adds { "ADD" } else { "COPY" }.to_owned();
    if copy.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [("chown", &copy.chown), ("chmod", &copy.chmod)] {
        if !value.is_empty() {
            text.push_str(&format!(" --{flag}={value}"));
        }
    }
    copy.sources.iter().for_each(|source| text.push_str(&format!(" {source}")));
    copy.contents.iter().for_each(|heredoc| text.push_str(&format!(" <<{}", heredoc.name)));
    format!("{text} {}", copy.target)
}
