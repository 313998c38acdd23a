//! Shell completion: small scripts that ask the program itself for candidates.

use super::spec::{Command, Completes, Flag, Kind};

/// What may follow the words typed so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// These, each with a description.
    Words(Vec<(String, String)>),
    /// Names of objects.
    Objects(Completes),
    /// File names.
    Files,
}

/// Finds what may follow `words`, the last of which is being typed.
pub(crate) fn candidates(root: &'static Command, words: &[String]) -> Offer {
    let (last, before) = words.split_last().map_or(("", &[][..]), |(l, b)| (l.as_str(), b));
    let mut command = root;
    let mut pending: Option<&Flag> = None;
    let mut plain = 0;
    for word in before {
        if pending.take().is_some() {
            continue;
        }
        if word.starts_with('-') && !(command.stops_at_word && plain > 0) {
            pending = awaiting(command, word);
            continue;
        }
        match command.child(word) {
            Some(child) => command = child,
            None => plain += 1,
        }
    }
    if pending.is_some() || (command.stops_at_word && plain > 0) {
        return Offer::Files;
    }
    if last.starts_with('-') {
        let flags = command.flags().filter(|flag| !flag.hidden);
        return Offer::Words(
            flags.map(|flag| (format!("--{}", flag.name), first_line(flag.help))).collect(),
        );
    }
    if !command.children.is_empty() {
        let shown = command.children.iter().filter(|child| !child.hidden);
        return Offer::Words(
            shown.map(|child| (child.name.to_owned(), first_line(child.about))).collect(),
        );
    }
    match command.completes {
        Completes::Files => Offer::Files,
        objects => Offer::Objects(objects),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Returns the flag whose value the next word is.
fn awaiting(command: &Command, word: &str) -> Option<&'static Flag> {
    let flag = match word.strip_prefix("--") {
        Some(long) if !long.contains('=') => command.find(long)?,
        Some(_) => return None,
        None => {
            let letter = word.chars().last()?;
            command.flags().find(|flag| flag.short == letter)?
        }
    };
    (flag.kind != Kind::Bool).then_some(flag)
}

/// Returns the script of a shell, for a program called `program`.
pub(crate) fn script(shell: &str, program: &str) -> Option<String> {
    let template = match shell {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        "powershell" => POWERSHELL,
        _ => return None,
    };
    let function: String =
        program.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    Some(template.replace("@PROGRAM@", program).replace("@FUNCTION@", &function))
}

// Each line of `__complete` is `word<tab>description`; the last one is `:files` or `:words`.
const BASH: &str = r#"# bash completion of @PROGRAM@
_@FUNCTION@_complete() {
    local line words=() kind=""
    while IFS= read -r line; do
        case "$line" in
            :*) kind="$line" ;;
            *) words+=("${line%%$'\t'*}") ;;
        esac
    done < <("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    local IFS=$'\n'
    if [ "$kind" = ":files" ]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    else
        COMPREPLY=($(compgen -W "${words[*]}" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _@FUNCTION@_complete @PROGRAM@
"#;

const POWERSHELL: &str = r#"# powershell completion of @PROGRAM@
Register-ArgumentCompleter -Native -CommandName '@PROGRAM@' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object { $_.ToString() })
    $lines = @(& $commandAst.CommandElements[0].ToString() __complete @words "$wordToComplete" 2>$null)
    if ($lines.Count -eq 0 -or $lines[-1] -eq ':files') { return }
    $lines | Select-Object -SkipLast 1 | ForEach-Object {
        $word, $description = $_ -split "`t", 2
        if ($word -like "$wordToComplete*") {
            $tip = if ($description) { $description } else { $word }
            [System.Management.Automation.CompletionResult]::new($word, $word, 'ParameterValue', $tip)
        }
    }
}
"#;

const ZSH: &str = r#"#compdef @PROGRAM@
_@FUNCTION@() {
    local line kind="" word
    local -a offers
    while IFS= read -r line; do
        case "$line" in
            :*) kind="$line" ;;
            *) word="${line%%$'\t'*}"; offers+=("${word//:/\\:}:${line#*$'\t'}") ;;
        esac
    done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if [ "$kind" = ":files" ]; then
        _files
    else
        _describe '@PROGRAM@' offers
    fi
}
if [ "$funcstack[1]" = "_@FUNCTION@" ]; then
    _@FUNCTION@ "$@"
else
    compdef _@FUNCTION@ @PROGRAM@
fi
"#;

const FISH: &str = r#"# fish completion of @PROGRAM@
function __@FUNCTION@_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] "$last" 2>/dev/null)
    if test "$lines[-1]" = ":files"
        __fish_complete_path "$last"
    else
        for line in $lines[1..-2]
            echo $line
        end
    end
end
complete -c @PROGRAM@ -f -a '(__@FUNCTION@_complete)'
"#;
