//! Texts and JSON trees with `${...}` parts.

use std::{fmt::Write as _, sync::Arc};

use serde_json::{Map, Value as Json};

use super::{
    ExprError, Expression, MAX_OUTPUT_BYTES, MAX_VALUE_DEPTH, Reference, Roots, Scope,
    error::{Place, Quoted},
    scan::{End, scan},
};

/// A text with CEL expressions in `${...}`.
///
/// `$${` stands for a literal `${`; any other `$` for itself. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Template {
    source: Arc<str>,
    parts: Arc<[Part]>,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Parses a text that may use the variables of `roots`.
    pub fn parse(source: &str, roots: &Roots) -> Result<Self, ExprError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find('$') {
            text.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("$${") {
                text.push_str("${");
                rest = after;
            } else if let Some(inside) = rest.strip_prefix("${") {
                let End::Brace(end) = scan(inside).end else {
                    let place = Place::after(&source[..source.len() - rest.len()]);
                    return Err(ExprError::Unclosed { template: Quoted::new(source), place });
                };
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Expression(Expression::parse(&inside[..end], roots).map_err(in_template)?));
                rest = &inside[end + 1..];
            } else {
                text.push('$');
                rest = &rest[1..];
            }
        }
        text.push_str(rest);
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Self { source: source.into(), parts: parts.into() })
    }

    /// What its expressions read, each once per expression.
    pub fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.expressions().flat_map(Expression::references)
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Expression(expression) => Some(expression),
        })
    }

    /// The text with each expression replaced by its value.
    ///
    /// Strings are put in as they are, numbers and bools as in JSON, lists and maps as compact JSON with sorted keys.
    ///
    /// Errors: as [`Expression::evaluate`]; a value is null; the text would be larger than [`MAX_OUTPUT_BYTES`].
    pub fn render(&self, scope: &Scope) -> Result<String, ExprError> {
        let mut rendered = String::new();
        for part in self.parts.iter() {
            match part {
                Part::Text(text) => rendered.push_str(text),
                Part::Expression(expression) => {
                    match expression.evaluate(scope)? {
                        Json::String(text) => rendered.push_str(&text),
                        Json::Null => {
                            return Err(ExprError::WrongResult {
                            expression: expression.quoted(),
                            got: "null".to_owned(),
                            expected: "a value to put into the text: test for null first, as in `x == null ? \"none\" : x`".to_owned(),
                        });
                        }
                        value => rendered.push_str(&value.to_string()),
                    }
                }
            }
            self.within_bounds(rendered.len())?;
        }
        Ok(rendered)
    }

    /// As [`render`](Self::render), but a template that is exactly one `${...}` keeps the type of its value.
    pub fn render_value(&self, scope: &Scope) -> Result<Json, ExprError> {
        match self.parts.as_ref() {
            [Part::Expression(expression)] => expression.evaluate(scope),
            _ => self.render(scope).map(Json::String),
        }
    }

    fn within_bounds(&self, bytes: usize) -> Result<(), ExprError> {
        if bytes > MAX_OUTPUT_BYTES {
            Err(ExprError::TooLarge { expression: Quoted::new(&self.source) })
        } else {
            Ok(())
        }
    }
}

/// A shell's `${VAR}` is the common reason for an unknown variable in a template.
fn in_template(mut error: ExprError) -> ExprError {
    if let ExprError::UnknownVariable { name, hint, .. } = &mut error
        && hint.is_empty()
    {
        *hint = format!("; for a literal ${{{name}}}, as shells have it, write $${{{name}}}").into();
    }
    error
}

/// Renders every string in a JSON tree, keys too.
///
/// A string that is exactly one `${...}` becomes the value itself (a number, an object, null); a key must give a string.
///
/// Errors: as [`Template::parse`] with the variables of the scope, and [`Template::render`]; two keys render to the
/// same text; the strings together are larger than [`MAX_OUTPUT_BYTES`].
pub fn render_json(value: &Json, scope: &Scope) -> Result<Json, ExprError> {
    let roots = scope.roots();
    Renderer { scope, roots: &roots, bytes_left: MAX_OUTPUT_BYTES }.render(value, MAX_VALUE_DEPTH)
}

struct Renderer<'a> {
    scope: &'a Scope,
    roots: &'a Roots,
    bytes_left: usize,
}

impl Renderer<'_> {
    fn render(&mut self, value: &Json, depth: usize) -> Result<Json, ExprError> {
        let deeper = || {
            depth
                .checked_sub(1)
                .ok_or(ExprError::DeepValue { name: "the value to render".to_owned(), depth: MAX_VALUE_DEPTH })
        };
        match value {
            Json::String(text) => {
                let rendered = if text.contains("${") {
                    Template::parse(text, self.roots)?.render_value(self.scope)?
                } else {
                    value.clone()
                };
                self.take(text, &rendered)?;
                Ok(rendered)
            }
            Json::Array(items) => {
                let depth = deeper()?;
                items.iter().map(|item| self.render(item, depth)).collect::<Result<_, _>>().map(Json::Array)
            }
            Json::Object(fields) => {
                let depth = deeper()?;
                let mut rendered = Map::new();
                for (key, field) in fields {
                    let field = self.render(field, depth)?;
                    let key = if key.contains("${") {
                        Template::parse(key, self.roots)?.render(self.scope)?
                    } else {
                        key.clone()
                    };
                    if rendered.contains_key(&key) {
                        let problem = "two keys of the same object render to this text: make them differ".to_owned();
                        return Err(ExprError::Evaluation { expression: Quoted::new(&key), problem });
                    }
                    rendered.insert(key, field);
                }
                Ok(Json::Object(rendered))
            }
            other => Ok(other.clone()),
        }
    }

    fn take(&mut self, source: &str, rendered: &Json) -> Result<(), ExprError> {
        let bytes = rendered.as_str().map_or_else(|| rendered.to_string().len(), str::len);
        self.bytes_left = self
            .bytes_left
            .checked_sub(bytes)
            .ok_or_else(|| ExprError::TooLarge { expression: Quoted::new(source) })?;
        Ok(())
    }
}

/// Parses every template in a JSON tree, keys too, without values.
///
/// Errors: the path of the string that fails, from the value on (`spec.containers[0].args[1]`, `labels["a/b"]`; empty
/// if the value is a string itself; for a key the path of its field), and why it fails.
pub fn check_json(value: &Json, roots: &Roots) -> Result<(), (String, ExprError)> {
    check_at(value, roots, &mut String::new(), MAX_VALUE_DEPTH).map_err(|(path, error)| (path, *error))
}

fn check_at(value: &Json, roots: &Roots, path: &mut String, depth: usize) -> Result<(), (String, Box<ExprError>)> {
    let deeper = |path: &str| {
        depth.checked_sub(1).ok_or_else(|| {
            (path.to_owned(), Box::new(ExprError::DeepValue { name: "the value".to_owned(), depth: MAX_VALUE_DEPTH }))
        })
    };
    let check = |text: &str, path: &str| {
        if !text.contains("${") {
            return Ok(());
        }
        Template::parse(text, roots).map(drop).map_err(|error| (path.to_owned(), Box::new(error)))
    };
    let length = path.len();
    match value {
        Json::String(text) => check(text, path)?,
        Json::Array(items) => {
            let depth = deeper(path)?;
            for (index, item) in items.iter().enumerate() {
                // Writing to a String does not fail.
                let _ = write!(path, "[{index}]");
                check_at(item, roots, path, depth)?;
                path.truncate(length);
            }
        }
        Json::Object(fields) => {
            let depth = deeper(path)?;
            for (key, field) in fields {
                push_key(path, key);
                check(key, path)?;
                check_at(field, roots, path, depth)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Keys that are no plain words are put in brackets and quotes.
fn push_key(path: &mut String, key: &str) {
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if !is_plain {
        let _ = write!(path, "[{}]", Json::String(Quoted::new(key).to_string()));
    } else if path.is_empty() {
        path.push_str(key);
    } else {
        path.push('.');
        path.push_str(key);
    }
}
