//! One Rust file, parsed once for all rules, and what of it is test code.
use std::ops::RangeInclusive;

use proc_macro2::TokenStream;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A parsed file. Lines count from 1.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) lines: Vec<String>,
    pub(super) tokens: TokenStream,
    pub(super) syntax: syn::File,
    /// Where the inline `#[cfg(test)] mod`s are.
    test_lines: Vec<RangeInclusive<usize>>,
}

/// A function with a body, outside of tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    /// From `fn` to the closing brace.
    pub(super) length: usize,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> syn::Result<Self> {
        let tokens: TokenStream = text.parse().map_err(syn::Error::from)?;
        let syntax = syn::parse_file(text)?;
        let mut tests = TestModules::default();
        tests.visit_file(&syntax);
        let lines = text.lines().map(str::to_owned).collect();
        Ok(Self {
            path: path.to_owned(),
            lines,
            tokens,
            syntax,
            test_lines: tests.lines,
        })
    }

    /// Lines without those of inline test modules.
    pub(super) fn length(&self) -> usize {
        let tests: usize = self
            .test_lines
            .iter()
            .map(|lines| lines.clone().count())
            .sum();
        self.lines.len() - tests
    }

    /// The functions that are not tests.
    pub(super) fn functions(&self) -> Vec<Function> {
        // A test module in a file of its own, or an integration test.
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return Vec::new();
        }
        let mut functions = Functions::default();
        functions.visit_file(&self.syntax);
        functions.found
    }
}

/// `#[cfg(test)]`, or a condition that contains it.
pub(super) fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| {
            let condition = attribute
                .meta
                .require_list()
                .map(|list| list.tokens.clone());
            condition.is_ok_and(|tokens| {
                let text = tokens.to_string();
                let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
                words.into_iter().any(|word| word == "test") && !text.contains("not")
            })
        })
}

/// `#[test]`, `#[tokio::test]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute
            .path()
            .segments
            .last()
            .is_some_and(|segment| segment.ident == "test")
    })
}

#[derive(Default)]
struct TestModules {
    lines: Vec<RangeInclusive<usize>>,
}

impl<'ast> Visit<'ast> for TestModules {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.content.is_some() && is_test_only(&module.attrs) {
            self.lines
                .push(module.span().start().line..=module.span().end().line);
        } else {
            visit::visit_item_mod(self, module);
        }
    }
}

#[derive(Default)]
struct Functions {
    found: Vec<Function>,
}

impl Functions {
    fn add(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature, end: usize) {
        if !is_test(attributes) && !is_test_only(attributes) {
            let line = signature.fn_token.span.start().line;
            let name = signature.ident.to_string();
            self.found.push(Function {
                name,
                line,
                length: end - line + 1,
            });
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test_only(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(
            &function.attrs,
            &function.sig,
            function.block.span().end().line,
        );
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(
            &function.attrs,
            &function.sig,
            function.block.span().end().line,
        );
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.attrs, &function.sig, body.span().end().line);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
//! A file.
fn short() {}

impl T {
    /// Documentation does not count.
    fn method(
        &self,
    ) {
        let brace = \"}\"; // }
    }
}

trait U {
    fn without_body();
    fn with_body() {
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn long() {
    }
}
";

    #[test]
    fn functions_and_their_lengths() {
        let source = Source::parse("x.rs", FILE).unwrap();
        let expected = [("short", 2, 1), ("method", 6, 5), ("with_body", 15, 2)];
        let found: Vec<_> = source
            .functions()
            .into_iter()
            .map(|f| (f.name, f.line, f.length))
            .collect();
        assert_eq!(
            found,
            expected.map(|(name, line, length)| (name.to_owned(), line, length))
        );
    }

    #[test]
    fn test_files_have_no_functions_to_judge() {
        let cases = [
            ("gateway/src/route/tests.rs", 0),
            ("tests/tests/netns/bed.rs", 0),
            ("tests/src/netns.rs", 3),
        ];
        for (path, expected) in cases {
            let source = Source::parse(path, FILE).unwrap();
            assert_eq!(source.functions().len(), expected, "{path}");
        }
    }

    #[test]
    fn inline_tests_do_not_count() {
        let source = Source::parse("x.rs", FILE).unwrap();
        assert_eq!(source.lines.len(), 24);
        assert_eq!(source.length(), 18);
    }

    #[test]
    fn test_conditions() {
        let cases = [
            ("#[cfg(test)] mod a {}", true),
            ("#[cfg(all(test, target_os = \"linux\"))] mod a {}", true),
            ("#[cfg(not(test))] mod a {}", false),
            ("#[cfg(feature = \"latest\")] mod a {}", false),
            ("mod a {}", false),
        ];
        for (text, expected) in cases {
            let module: syn::ItemMod = syn::parse_str(text).unwrap();
            assert_eq!(is_test_only(&module.attrs), expected, "{text}");
        }
    }
}
