//! What can be said of an expression before there are values: which names it uses, and which types can't fit.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};

use super::{
    ExprError, MAX_DEPTH, MAX_LOOPS, Roots,
    constants::check_constant,
    error::{Place, Quoted},
    functions::{self, Function, Style},
    roots::{OwnedReference, closest},
    types::{Type, of_binary},
};

/// What a check found out.
pub(super) struct Checked {
    pub(super) result: Type,
    pub(super) references: Vec<OwnedReference>,
    /// Whether evaluating it may take long: it loops, or calls what works through a whole text or list.
    pub(super) may_take_long: bool,
}

/// Functions whose work is small whatever they are given.
const QUICK: &[&str] =
    &["size", "int", "uint", "double", "bool", "string", "duration", "timestamp", "startsWith", "endsWith"];

/// Checks an expression as the parser made it.
pub(super) fn check(expr: &IdedExpr, info: &SourceInfo, roots: &Roots) -> Result<Checked, ExprError> {
    let mut checker =
        Checker { info, roots, locals: Vec::new(), loops: 0, references: BTreeSet::new(), may_take_long: false };
    let result = checker.infer(expr, 0)?;
    let Checker { references, may_take_long, .. } = checker;
    Ok(Checked { result, references: references.into_iter().collect(), may_take_long })
}

struct Checker<'a> {
    info: &'a SourceInfo,
    roots: &'a Roots,
    /// The variables of loops, innermost last.
    locals: Vec<(String, Type)>,
    loops: usize,
    references: BTreeSet<OwnedReference>,
    may_take_long: bool,
}

impl Checker<'_> {
    fn infer(&mut self, expr: &IdedExpr, depth: usize) -> Result<Type, ExprError> {
        if depth > MAX_DEPTH {
            return Err(ExprError::TooDeep { expression: self.quoted() });
        }
        let depth = depth + 1;
        match &expr.expr {
            Expr::Literal(literal) => Ok(Type::of_literal(literal)),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => self.select(expr, select, depth),
            Expr::Call(call) => self.call(expr, call, depth),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension, depth),
            Expr::List(list) => {
                list.elements.iter().try_for_each(|element| self.infer(element, depth).map(drop))?;
                Ok(Type::List)
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        let key = self.infer(&entry.key, depth)?;
                        if !key.may_be_one_of(&[Type::String, Type::Int, Type::Uint, Type::Bool]) {
                            return Err(self.misfit(
                                &entry.key,
                                format!("a map's key is a string, an int or a bool, this is {key}"),
                            ));
                        }
                        self.infer(&entry.value, depth)?;
                    }
                }
                Ok(Type::Map)
            }
            Expr::Struct(made) => Err(self.misfit(
                expr,
                format!("there are no message types such as `{}`: write a map, {{\"key\": value}}", made.type_name),
            )),
            Expr::Unspecified => Err(self.misfit(expr, "a part of the expression is missing".to_owned())),
        }
    }

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Result<Type, ExprError> {
        if let Some((_, type_)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return Ok(*type_);
        }
        let name = name.trim_start_matches('.');
        if self.roots.contains(name) {
            self.refer(name, None, false);
            return Ok(Type::Dyn);
        }
        if functions::TYPE_NAMES.contains(&name) {
            return Ok(Type::Type);
        }
        Err(self.unknown_variable(expr, name))
    }

    fn refer(&mut self, root: &str, field: Option<&str>, optional: bool) {
        self.references.insert(OwnedReference { root: root.to_owned(), field: field.map(str::to_owned), optional });
    }

    /// The variable that an expression is, if it is nothing but a variable from outside.
    fn root_of<'e>(&self, expr: &'e IdedExpr) -> Option<&'e str> {
        match &expr.expr {
            Expr::Ident(name) if !self.locals.iter().any(|(local, _)| local == name) => {
                Some(name.trim_start_matches('.')).filter(|name| self.roots.contains(name))
            }
            _ => None,
        }
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr, depth: usize) -> Result<Type, ExprError> {
        if let Some(root) = self.root_of(&select.operand) {
            self.refer(root, Some(&select.field), select.test);
            return Ok(if select.test { Type::Bool } else { Type::Dyn });
        }
        if !select.test && qualified_name(expr).is_some_and(|name| functions::TYPE_NAMES.contains(&name.as_str())) {
            return Ok(Type::Type);
        }
        let operand = self.infer(&select.operand, depth)?;
        if !operand.may_be_one_of(&[Type::Map, Type::Optional]) {
            return Err(self.misfit(expr, format!("{operand} has no field `{}`", select.field)));
        }
        Ok(if select.test { Type::Bool } else { Type::Dyn })
    }

    fn comprehension(&mut self, made: &ComprehensionExpr, depth: usize) -> Result<Type, ExprError> {
        let range = self.infer(&made.iter_range, depth)?;
        if !range.may_be_one_of(&[Type::List, Type::Map]) {
            return Err(self.misfit(&made.iter_range, format!("a loop needs a list or a map, this is {range}")));
        }
        // A loop over an empty list is how macros bind a variable once.
        let is_loop = !matches!(&made.iter_range.expr, Expr::List(list) if list.elements.is_empty());
        let start = self.infer(&made.accu_init, depth)?;
        self.loops += usize::from(is_loop);
        self.may_take_long |= is_loop;
        if self.loops > MAX_LOOPS {
            return Err(ExprError::TooManyLoops { expression: self.quoted() });
        }
        let outside = self.locals.len();
        self.locals.push((made.accu_var.clone(), start));
        self.locals.push((made.iter_var.clone(), Type::Dyn));
        self.locals.extend(made.iter_var2.clone().map(|name| (name, Type::Dyn)));
        self.infer(&made.loop_cond, depth)?;
        let step = self.infer(&made.loop_step, depth)?;
        self.locals.truncate(outside);
        self.loops -= usize::from(is_loop);
        self.locals.push((made.accu_var.clone(), start.join(step)));
        let result = self.infer(&made.result, depth)?;
        self.locals.truncate(outside);
        Ok(result)
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, depth: usize) -> Result<Type, ExprError> {
        if let Some(target) = &call.target {
            if let Some(function) =
                qualified_name(target).and_then(|name| functions::find_global(&format!("{name}.{}", call.func_name)))
            {
                return self.function(expr, call, function, depth);
            }
            return self.method(expr, call, target, depth);
        }
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect_bool(condition, depth)?;
                Ok(self.infer(yes, depth)?.join(self.infer(no, depth)?))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [left, right]) => {
                self.expect_bool(left, depth)?;
                self.expect_bool(right, depth)
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [operand]) => self.expect_bool(operand, depth),
            (operators::NEGATE, [operand]) => {
                let type_ = self.infer(operand, depth)?;
                let fits = type_.may_be_one_of(&[Type::Int, Type::Double]);
                if fits { Ok(type_) } else { Err(self.misfit(operand, format!("`-` needs a number, this is {type_}"))) }
            }
            (operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT, [container, key]) => {
                self.index(&call.func_name, container, key, depth)
            }
            (name, [left, right]) if super::explain::is_operator(name) => {
                let (left, right) = (self.infer(left, depth)?, self.infer(right, depth)?);
                of_binary(name, left, right).map_err(|problem| self.misfit(expr, problem))
            }
            (name, _) => match functions::find_global(name) {
                Some(function) => self.function(expr, call, function, depth),
                None => self.internal_or_unknown(expr, call, depth),
            },
        }
    }

    fn index(&mut self, operator: &str, container: &IdedExpr, key: &IdedExpr, depth: usize) -> Result<Type, ExprError> {
        let optional = operator != operators::INDEX;
        let result = if optional { Type::Optional } else { Type::Dyn };
        if let (Some(root), Expr::Literal(LiteralValue::String(field))) = (self.root_of(container), &key.expr) {
            self.refer(root, Some(field.inner()), optional);
            return Ok(result);
        }
        let type_ = self.infer(container, depth)?;
        let key_type = self.infer(key, depth)?;
        if !type_.may_be_one_of(&[Type::List, Type::Map, Type::Optional]) {
            return Err(self.misfit(container, format!("only lists and maps have elements, this is {type_}")));
        }
        if type_ == Type::List && !key_type.may_be_one_of(&[Type::Int, Type::Uint, Type::Double]) {
            return Err(self.misfit(key, format!("a list's index is an int, this is {key_type}")));
        }
        Ok(result)
    }

    fn expect_bool(&mut self, expr: &IdedExpr, depth: usize) -> Result<Type, ExprError> {
        let type_ = self.infer(expr, depth)?;
        if type_.may_be(Type::Bool) {
            Ok(Type::Bool)
        } else {
            Err(self.misfit(expr, format!("expected a bool, this is {type_}")))
        }
    }

    fn function(
        &mut self,
        expr: &IdedExpr,
        call: &CallExpr,
        function: &Function,
        depth: usize,
    ) -> Result<Type, ExprError> {
        self.may_take_long |= !QUICK.contains(&function.name);
        self.arguments(expr, call, function, depth)?;
        check_constant(function.name, None, &call.args).map_err(|problem| self.misfit(expr, problem))?;
        Ok(function.result)
    }

    fn method(&mut self, expr: &IdedExpr, call: &CallExpr, target: &IdedExpr, depth: usize) -> Result<Type, ExprError> {
        let Some(function) = functions::find_method(&call.func_name) else {
            if let Some((_, result)) = functions::INTERNAL.iter().find(|(name, _)| *name == call.func_name) {
                self.infer(target, depth)?;
                call.args.iter().try_for_each(|argument| self.infer(argument, depth).map(drop))?;
                return Ok(*result);
            }
            return Err(self.unknown_function(expr, &call.func_name, true));
        };
        self.may_take_long |= !QUICK.contains(&function.name);
        let type_ = self.infer(target, depth)?;
        if let Style::Method(on) = function.style
            && !type_.may_be_one_of(on)
        {
            return Err(self.misfit(expr, format!("{type_} has no method `{}`", call.func_name)));
        }
        self.arguments(expr, call, function, depth)?;
        check_constant(function.name, Some(target), &call.args).map_err(|problem| self.misfit(expr, problem))?;
        // The result of a method on a list of anything may be anything.
        Ok(function.result)
    }

    fn arguments(
        &mut self,
        expr: &IdedExpr,
        call: &CallExpr,
        function: &Function,
        depth: usize,
    ) -> Result<(), ExprError> {
        call.args.iter().try_for_each(|argument| self.infer(argument, depth).map(drop))?;
        let (fewest, most) = function.arguments;
        if (fewest..=most).contains(&call.args.len()) {
            return Ok(());
        }
        let expected = if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") };
        Err(self.misfit(
            expr,
            format!(
                "`{}` takes {expected} argument{}, this has {}",
                function.name,
                if most == 1 { "" } else { "s" },
                call.args.len()
            ),
        ))
    }

    fn internal_or_unknown(&mut self, expr: &IdedExpr, call: &CallExpr, depth: usize) -> Result<Type, ExprError> {
        let Some((_, result)) = functions::INTERNAL.iter().find(|(name, _)| *name == call.func_name) else {
            return Err(self.unknown_function(expr, &call.func_name, false));
        };
        call.args.iter().try_for_each(|argument| self.infer(argument, depth).map(drop))?;
        Ok(*result)
    }

    fn quoted(&self) -> Quoted {
        Quoted::new(&self.info.source)
    }

    /// The text before an expression. The parser counts in bytes.
    fn before(&self, expr: &IdedExpr) -> Option<&str> {
        let (start, _) = self.info.offset_for(expr.id)?;
        self.info.source.get(..usize::try_from(start).ok()?)
    }

    fn place(&self, expr: &IdedExpr) -> Place {
        self.before(expr).map_or(Place::UNKNOWN, Place::after)
    }

    fn misfit(&self, expr: &IdedExpr, problem: String) -> ExprError {
        ExprError::Type { expression: self.quoted(), place: self.place(expr), problem }
    }

    fn unknown_variable(&self, expr: &IdedExpr, name: &str) -> ExprError {
        let locals = self.locals.iter().map(|(name, _)| name.as_str()).filter(|name| !name.starts_with(['@', '#']));
        // `steps.load-test` is a subtraction; nobody who writes it means one.
        let after_dash = self
            .before(expr)
            .and_then(|text| text.strip_suffix('-'))
            .is_some_and(|text| text.ends_with(|c: char| c.is_alphanumeric()));
        let hint = if after_dash {
            "; a name with a `-` needs brackets and quotes, as in steps[\"load-test\"]".to_owned()
        } else {
            closest(name, self.roots.iter().chain(locals.clone()))
                .map(|meant| format!("; did you mean {meant}?"))
                .unwrap_or_default()
        };
        let known = super::roots::list(self.roots.iter().chain(locals));
        ExprError::UnknownVariable {
            name: name.to_owned(),
            expression: self.quoted(),
            place: self.place(expr),
            known: known.into(),
            hint: hint.into(),
        }
    }

    fn unknown_function(&self, expr: &IdedExpr, name: &str, method: bool) -> ExprError {
        let hint = if let Some(other) = functions::names(!method).find(|other| *other == name) {
            if method {
                format!("it is called as {other}(x), not as x.{other}()")
            } else {
                format!("it is called as x.{other}(), not as {other}(x)")
            }
        } else {
            let meant = closest(name, functions::names(method).chain(functions::names(!method)))
                .map(|meant| format!("did you mean {meant}? "))
                .unwrap_or_default();
            let what = if method { "methods" } else { "functions" };
            format!("{meant}{what}: {}", super::roots::list(functions::names(method)))
        };
        ExprError::UnknownFunction {
            name: name.to_owned(),
            expression: self.quoted(),
            place: self.place(expr),
            hint: hint.into(),
        }
    }
}

/// `a.b.c` for an expression that is nothing but names and dots.
pub(super) fn qualified_name(expr: &IdedExpr) -> Option<String> {
    match &expr.expr {
        Expr::Ident(name) => Some(name.trim_start_matches('.').to_owned()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", qualified_name(&select.operand)?, select.field)),
        _ => None,
    }
}
