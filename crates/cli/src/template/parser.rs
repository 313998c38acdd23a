//! Tokens → syntax tree.

use super::TemplateError;
use super::functions;
use super::lexer::{self, Token};
use super::node::{Command, Kind, Node, Operand, Pipeline};
use super::value::Value;

/// Parses a template.
pub(super) fn parse(name: &str, text: &str) -> Result<Vec<Node>, TemplateError> {
    let tokens = lexer::tokens(name, text)?;
    let mut parser =
        Parser { name, text, tokens, at: 0, variables: vec!["$".to_owned()], depth: 0 };
    let (nodes, end) = parser.list(Inside::Top)?;
    match end {
        End::Text => Ok(nodes),
        End::Closed => Err(parser.fail("unexpected {{end}}")),
        End::Else(_) => Err(parser.fail("unexpected {{else}}")),
    }
}

struct Parser<'a> {
    name: &'a str,
    text: &'a str,
    tokens: Vec<(usize, Token)>,
    at: usize,
    variables: Vec<String>,
    depth: usize,
}

/// What closed a list of nodes.
enum End {
    Text,
    Closed,
    /// With `if` or `with` right behind it.
    Else(Option<String>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Top,
    Block,
    Loop,
}

// LIMIT: the parser and the evaluation recurse; nobody nests deeper by hand.
const DEEPEST: usize = 100;

impl Parser<'_> {
    fn fail(&self, reason: &str) -> TemplateError {
        let at = self.tokens.get(self.at.saturating_sub(1)).map_or(0, |(at, _)| *at);
        TemplateError(lexer::error_text(self.name, self.text, at, reason))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn next(&mut self) -> Option<(usize, Token)> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn skip_space(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.at += 1;
        }
    }

    fn word(&mut self) -> Option<String> {
        self.skip_space();
        match self.peek() {
            Some(Token::Word(word)) => Some(word.clone()),
            _ => None,
        }
    }

    fn list(&mut self, inside: Inside) -> Result<(Vec<Node>, End), TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail("exceeded maximum nesting depth"));
        }
        let mut nodes = Vec::new();
        while let Some((_, token)) = self.next() {
            if let Token::Text(text) = token {
                nodes.push(Node::Text(text));
                continue;
            }
            let keyword = self.word().unwrap_or_default();
            match keyword.as_str() {
                "end" => {
                    self.at += 1;
                    self.close("end")?;
                    self.depth -= 1;
                    return Ok((nodes, End::Closed));
                }
                "else" => {
                    self.at += 1;
                    let chained = self.word().filter(|word| word == "if" || word == "with");
                    if chained.is_some() {
                        self.at += 1;
                    } else {
                        self.close("else")?;
                    }
                    self.depth -= 1;
                    return Ok((nodes, End::Else(chained)));
                }
                _ => nodes.push(self.action(&keyword, inside)?),
            }
        }
        if inside != Inside::Top {
            return Err(self.fail("unexpected EOF"));
        }
        Ok((nodes, End::Text))
    }

    fn close(&mut self, what: &str) -> Result<(), TemplateError> {
        self.skip_space();
        match self.next() {
            Some((_, Token::Right)) => Ok(()),
            Some((at, _)) => {
                let rest = self.text[at..].split("}}").next().unwrap_or_default();
                Err(self.fail(&format!("unexpected {} in {what}", describe(rest))))
            }
            None => Err(self.fail("unexpected EOF")),
        }
    }

    fn action(&mut self, keyword: &str, inside: Inside) -> Result<Node, TemplateError> {
        match keyword {
            "if" | "range" | "with" => {
                self.at += 1;
                self.control(keyword, inside)
            }
            "break" | "continue" => {
                self.at += 1;
                self.close(keyword)?;
                if inside != Inside::Loop {
                    return Err(self.fail(&format!("{{{{{keyword}}}}} outside {{{{range}}}}")));
                }
                Ok(if keyword == "break" { Node::Break } else { Node::Continue })
            }
            "define" | "block" | "template" => {
                self.at += 1;
                self.named(keyword)
            }
            _ => {
                let pipeline = self.pipeline("command")?;
                self.close("command")?;
                Ok(Node::Action(pipeline))
            }
        }
    }

    fn control(&mut self, keyword: &str, inside: Inside) -> Result<Node, TemplateError> {
        let known = self.variables.len();
        let pipeline = self.pipeline(keyword)?;
        self.close(keyword)?;
        let inner = match (keyword, inside) {
            ("range", _) | (_, Inside::Loop) => Inside::Loop,
            _ => Inside::Block,
        };
        let (body, end) = self.list(inner)?;
        let outer = if inside == Inside::Top { Inside::Block } else { inside };
        let otherwise = match end {
            End::Else(None) => {
                let (otherwise, end) = self.list(outer)?;
                if !matches!(end, End::Closed) {
                    return Err(self.fail("expected end; found {{else}}"));
                }
                otherwise
            }
            End::Else(Some(chained)) if chained == keyword => vec![self.control(&chained, outer)?],
            End::Else(Some(chained)) => {
                return Err(self.fail(&format!("unexpected <{chained}> in input")));
            }
            _ => Vec::new(),
        };
        self.variables.truncate(known);
        Ok(match keyword {
            "if" => Node::If(pipeline, body, otherwise),
            "range" => Node::Range(pipeline, body, otherwise),
            _ => Node::With(pipeline, body, otherwise),
        })
    }

    /// `define "x"`, `block "x" pipeline`, `template "x" [pipeline]`
    fn named(&mut self, keyword: &str) -> Result<Node, TemplateError> {
        self.skip_space();
        let Some((at, Token::Text2(name, _))) = self.next() else {
            return Err(self.fail(&format!("unexpected token in {keyword} clause")));
        };
        self.skip_space();
        let wants_data = keyword != "define" && self.peek() != Some(&Token::Right);
        let data = if wants_data { Some(self.pipeline(keyword)?) } else { None };
        self.close(keyword)?;
        if keyword == "template" {
            return Ok(Node::Call(at, name, data));
        }
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let (body, _) = self.list(Inside::Block)?;
        self.variables = variables;
        if keyword == "define" {
            return Ok(Node::Define(name, body));
        }
        let call = Node::Call(at, name.clone(), data);
        // `block` defines and calls; a constant condition keeps the two together.
        let always = Pipeline {
            variables: Vec::new(),
            assigns: false,
            commands: vec![Command {
                operands: vec![Operand {
                    at,
                    kind: Kind::Constant(Value::Bool(true), "true".to_owned()),
                }],
            }],
        };
        Ok(Node::If(always, vec![Node::Define(name, body), call], Vec::new()))
    }

    fn pipeline(&mut self, context: &str) -> Result<Pipeline, TemplateError> {
        self.skip_space();
        let (variables, assigns) = self.declaration(context)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(Token::Right | Token::Close) | None => break,
                _ => {}
            }
            commands.push(self.command()?);
            self.skip_space();
            if self.peek() == Some(&Token::Pipe) {
                self.at += 1;
                self.skip_space();
                if matches!(self.peek(), Some(Token::Right | Token::Close)) {
                    return Err(self.fail(&format!("missing value for {context}")));
                }
            }
        }
        if commands.is_empty() {
            return Err(self.fail(&format!("missing value for {context}")));
        }
        self.check_stages(&commands)?;
        Ok(Pipeline { variables, assigns, commands })
    }

    fn check_stages(&self, commands: &[Command]) -> Result<(), TemplateError> {
        for (index, command) in commands.iter().enumerate().skip(1) {
            let first = &command.operands[0].kind;
            if matches!(first, Kind::Constant(..) | Kind::Nil | Kind::Dot) {
                let reason = format!("non executable command in pipeline stage {}", index + 1);
                return Err(self.fail(&reason));
            }
        }
        Ok(())
    }

    /// `$x :=`, `$k, $v :=`, `$x =`
    fn declaration(&mut self, context: &str) -> Result<(Vec<String>, bool), TemplateError> {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
            self.skip_space();
            match self.peek() {
                Some(Token::Comma) if context == "range" && names.len() < 2 => {
                    self.at += 1;
                    self.skip_space();
                }
                Some(Token::Assign(sign)) => {
                    let assigns = *sign == "=";
                    self.at += 1;
                    if assigns {
                        for name in &names {
                            self.check_variable(name)?;
                        }
                    } else {
                        self.variables.extend(names.iter().cloned());
                    }
                    return Ok((names, assigns));
                }
                _ => break,
            }
        }
        self.at = start;
        Ok((Vec::new(), false))
    }

    fn check_variable(&self, name: &str) -> Result<(), TemplateError> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(self.fail(&format!("undefined variable {name:?}")))
    }

    fn command(&mut self) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(Token::Right | Token::Close | Token::Pipe) | None => break,
                _ => operands.push(self.operand()?),
            }
            match self.peek() {
                Some(Token::Space | Token::Right | Token::Close | Token::Pipe) | None => {}
                Some(_) => {
                    let at = self.tokens[self.at].0;
                    let rest = self.text[at..].split("}}").next().unwrap_or_default();
                    return Err(self.fail(&format!("unexpected {} in operand", describe(rest))));
                }
            }
        }
        if operands.is_empty() {
            return Err(self.fail("empty command"));
        }
        Ok(Command { operands })
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let Some((at, token)) = self.next() else { return Err(self.fail("unexpected EOF")) };
        // COMPAT: Go places a chain of fields where its second one stands.
        let chained = match (&token, self.tokens.get(self.at)) {
            (Token::Field(_) | Token::Variable(_), Some((next, Token::Field(_)))) => Some(*next),
            _ => None,
        };
        let kind = match token {
            Token::Dot => Kind::Dot,
            Token::Field(name) => {
                let mut names = vec![name];
                names.extend(self.fields());
                Kind::Field(names)
            }
            Token::Variable(name) => {
                self.check_variable(&name)?;
                Kind::Variable(name, self.fields())
            }
            Token::Word(word) => self.word_operand(word)?,
            Token::Text2(text, source) => Kind::Constant(Value::text(text), source),
            Token::Char(code, source) => Kind::Constant(Value::Int(code), source),
            Token::Number(source) => Kind::Constant(self.number(&source)?, source),
            Token::Open => return self.parenthesis(at),
            _ => {
                let rest = self.text[at..].split("}}").next().unwrap_or_default();
                return Err(self.fail(&format!("unexpected {} in command", describe(rest))));
            }
        };
        Ok(Operand { at: chained.unwrap_or(at), kind })
    }

    fn parenthesis(&mut self, at: usize) -> Result<Operand, TemplateError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.fail("max expression depth exceeded"));
        }
        let pipeline = self.pipeline("parenthesized pipeline")?;
        self.depth -= 1;
        let Some((_, Token::Close)) = self.next() else {
            return Err(self.fail("unclosed left paren"));
        };
        let operand = Operand { at, kind: Kind::Pipeline(pipeline) };
        let names = self.fields();
        if names.is_empty() {
            return Ok(operand);
        }
        Ok(Operand { at, kind: Kind::Chain(Box::new(operand), names) })
    }

    fn word_operand(&self, word: String) -> Result<Kind, TemplateError> {
        match word.as_str() {
            "true" | "false" => Ok(Kind::Constant(Value::Bool(word == "true"), word)),
            "nil" => Ok(Kind::Nil),
            _ if functions::is_known(&word) => Ok(Kind::Function(word)),
            _ => Err(self.fail(&format!("function {word:?} not defined"))),
        }
    }

    fn fields(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(Token::Field(name)) = self.peek() {
            names.push(name.clone());
            self.at += 1;
        }
        names
    }

    fn number(&self, source: &str) -> Result<Value, TemplateError> {
        let clean = source.replace('_', "");
        let (sign, digits) = match clean.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, clean.strip_prefix('+').unwrap_or(&clean)),
        };
        let radix = |prefixes: [&str; 2], radix| {
            let digits = prefixes.iter().find_map(|prefix| digits.strip_prefix(prefix))?;
            i64::from_str_radix(digits, radix).ok()
        };
        let whole = radix(["0x", "0X"], 16)
            .or_else(|| radix(["0b", "0B"], 2))
            .or_else(|| radix(["0o", "0O"], 8))
            .or_else(|| digits.parse().ok());
        if let Some(whole) = whole {
            return Ok(Value::Int(sign * whole));
        }
        let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        match digits.parse::<f64>() {
            Ok(number) if numeric => Ok(Value::Float(f64::from(sign as i32) * number)),
            _ => Err(self.fail(&format!("bad number syntax: {source:?}"))),
        }
    }
}

/// Names what stands at the start of `rest` as Go's parser does, roughly.
fn describe(rest: &str) -> String {
    let end = rest.find([' ', '}', ')', '|']).unwrap_or(rest.len()).max(1);
    let word: String = rest.chars().take(rest[..end.min(rest.len())].chars().count()).collect();
    format!("{word:?}")
}
