//! Paths into JSON:
//!
//! `path = step *("." step)`, `step = key *selector`,
//! `selector = "[" index "]" | "[*]" | "[" key "=" text "]"`
//!
//! `[0]` is an item of an array, `[*]` every item, `[system=urn:x]` every item that is an object with the string
//! `"urn:x"` as its member `system`.

use super::json::{Node, Tree};

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Item(usize),
    Every,
    Where { key: String, value: String },
}

impl Path {
    /// `None` if it is not a path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = text;
        loop {
            let end = rest.find(['.', '[', ']', '=']).unwrap_or(rest.len());
            let (key, mut after) = rest.split_at(end);
            if key.is_empty() {
                return None;
            }
            steps.push(Step::Member(key.to_owned()));
            while let Some(selector) = after.strip_prefix('[') {
                let (inner, next) = selector.split_once(']')?;
                steps.push(Step::parse(inner)?);
                after = next;
            }
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => return Some(Self(steps)),
                None => return None,
            }
        }
    }

    /// Calls `found` with every node that the path leads to, in the order of the text.
    pub(super) fn follow<'t>(&self, tree: &'t Tree<'_>, found: &mut impl FnMut(&'t Node)) {
        follow(&self.0, tree, &tree.root, found);
    }
}

impl Step {
    fn parse(inner: &str) -> Option<Self> {
        if inner == "*" {
            return Some(Self::Every);
        }
        match inner.split_once('=') {
            Some(("", _)) => None,
            Some((key, value)) => Some(Self::Where { key: key.to_owned(), value: value.to_owned() }),
            None if inner.bytes().all(|b| b.is_ascii_digit()) => inner.parse().ok().map(Self::Item),
            None => None,
        }
    }
}

fn follow<'t>(steps: &[Step], tree: &'t Tree<'_>, node: &'t Node, found: &mut impl FnMut(&'t Node)) {
    let Some((step, rest)) = steps.split_first() else {
        return found(node);
    };
    match (step, node) {
        (Step::Member(key), Node::Object(members)) => {
            // A key that comes twice is followed twice: no reader may see a value that this one did not.
            for (_, member) in members.iter().filter(|(span, _)| tree.is(span, key)) {
                follow(rest, tree, member, found);
            }
        }
        (Step::Item(at), Node::Array(items)) => {
            if let Some(item) = items.get(*at) {
                follow(rest, tree, item, found);
            }
        }
        (Step::Every, Node::Array(items)) => items.iter().for_each(|item| follow(rest, tree, item, found)),
        (Step::Where { key, value }, Node::Array(items)) => {
            let chosen = |item: &&Node| match item {
                Node::Object(members) => members.iter().any(|(span, member)| {
                    tree.is(span, key) && matches!(member, Node::String(text) if tree.is(text, value))
                }),
                _ => false,
            };
            items.iter().filter(chosen).for_each(|item| follow(rest, tree, item, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, json: &str) -> Vec<String> {
        let tree = Tree::parse(json.as_bytes()).unwrap();
        let mut found = Vec::new();
        Path::parse(path).unwrap().follow(&tree, &mut |node| {
            found.push(match node {
                Node::String(span) => json[span.clone()].to_owned(),
                _ => "other".to_owned(),
            });
        });
        found
    }

    const PATIENT: &str = r#"{"id":"p1","name":[{"family":"A","given":["B","C"]},{"family":"D"}],
        "identifier":[{"value":"1","system":"urn:x"},{"system":"urn:x=y","value":"2"},{"system":7,"value":"3"},"s"]}"#;

    #[test]
    fn a_path_leads_to_every_place_it_names_and_to_no_other() {
        assert_eq!(at("id", PATIENT), ["p1"]);
        assert_eq!(at("name[0].family", PATIENT), ["A"]);
        assert_eq!(at("name[*].family", PATIENT), ["A", "D"]);
        assert_eq!(at("name[*].given[*]", PATIENT), ["B", "C"]);
        assert_eq!(at("name[*].given", PATIENT), ["other"]);
        assert_eq!(at("identifier[system=urn:x].value", PATIENT), ["1"]);
        assert_eq!(at("identifier[system=urn:x=y].value", PATIENT), ["2"]);
        for nowhere in ["no", "name.family", "name[2].family", "id[0]", "id.x", "name[*].given[2]"] {
            assert!(at(nowhere, PATIENT).is_empty(), "{nowhere}");
        }
    }

    #[test]
    fn an_escaped_or_repeated_key_is_found_too() {
        assert_eq!(at("ssn", r#"{"ss\u006e":"1","ssn":"2"}"#), ["1", "2"]);
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for bad in
            ["", ".", "a.", ".a", "a..b", "a[", "a[]", "a[x]", "a[-1]", "a[=x]", "[0]", "a]b", "a[0]b", "a=b"]
        {
            assert_eq!(Path::parse(bad), None, "{bad}");
        }
    }
}
