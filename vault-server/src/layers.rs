//! The layers' arrows point down, and the seams that hold the invariants have one place each.

use std::fs;
use std::path::{Path, PathBuf};

/// Each layer, and what it may use. `domain` is below all.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("crypto", &["crypto", "domain"]),
    ("kms", &["kms", "crypto", "domain"]),
    ("store", &["store", "crypto", "domain"]),
    ("keyring", &["keyring", "kms", "store", "crypto", "domain"]),
    ("access", &["access", "store", "crypto", "domain"]),
    ("audit", &["audit", "access", "keyring", "store", "crypto", "domain"]),
    ("vault", &["vault", "audit", "access", "keyring", "store", "kms", "crypto", "domain"]),
    ("jobs", &["jobs", "vault", "audit", "keyring", "store", "crypto", "domain"]),
    ("grpc", &["grpc", "vault", "audit", "access", "domain"]),
    (
        "app",
        &["app", "grpc", "jobs", "vault", "audit", "access", "keyring", "store", "kms", "crypto", "domain"],
    ),
];

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, into: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut files = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    files
}

fn layer_of(path: &Path) -> Option<String> {
    let below = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = below.components().next()?.as_os_str().to_str()?;
    LAYERS.iter().any(|(layer, _)| *layer == first).then(|| first.to_owned())
}

/// Modules named by `crate::` paths in code: comments and the tests at a file's end do not count.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.starts_with("mod tests {") {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            found.push((number + 1, name));
        }
    }
    found
}

fn upward(layer: &str, text: &str) -> Vec<(usize, String)> {
    let (_, allowed) = LAYERS.iter().find(|(name, _)| *name == layer).unwrap();
    let known = |name: &str| LAYERS.iter().any(|(layer, _)| *layer == name);
    uses(text).into_iter().filter(|(_, name)| known(name) && !allowed.contains(&name.as_str())).collect()
}

/// Files of tests alone.
fn is_test(path: &Path) -> bool {
    let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).to_string_lossy();
    name.contains("test")
        || path.ends_with("matrix.rs")
        || path.ends_with("layers.rs")
        || path.ends_with("conformance.rs")
}

#[test]
fn arrows_point_down() {
    let mut bad = Vec::new();
    for (path, text) in sources() {
        if let Some(layer) = layer_of(&path).filter(|_| !is_test(&path)) {
            bad.extend(
                upward(&layer, &text)
                    .into_iter()
                    .map(|(line, to)| format!("{}:{line} -> {to}", path.display())),
            );
        }
    }
    assert!(bad.is_empty(), "arrows that run up:\n{}", bad.join("\n"));
}

#[test]
fn an_arrow_that_runs_up_is_caught() {
    assert_eq!(upward("crypto", "use crate::vault::Vault;"), [(1, "vault".to_owned())]);
    assert_eq!(upward("crypto", "use crate::domain::Token;"), []);
    assert_eq!(upward("crypto", "// crate::vault is above\n"), []);
}

/// What may be named in one place only, and where.
const SEAMS: &[(&str, &[&str])] = &[
    // The only way to make a warrant or a mandate, and the one call of each.
    ("Warrant::assertion(", &["vault/warrant.rs"]),
    ("Mandate::assertion(", &["jobs/mandate.rs"]),
    ("::assertion(", &["vault/warrant.rs", "jobs/mandate.rs"]),
    ("aws_sdk_kms", &["kms/aws.rs", "kms/aws/"]),
    ("tonic::Status", &["grpc/", "app/"]),
    ("cedar_policy::", &["access/"]),
    ("use fjall::", &["store/embedded/fjall.rs"]),
    ("use sled::", &["store/embedded/sled.rs"]),
];

#[test]
fn seams_have_one_place() {
    for (needle, places) in SEAMS {
        for (path, text) in sources() {
            if is_test(&path) || places.iter().any(|place| path.to_string_lossy().contains(place)) {
                continue;
            }
            let code = text.split("\nmod tests {").next().unwrap_or_default();
            let line =
                code.lines().position(|line| line.split("//").next().unwrap_or_default().contains(needle));
            assert!(line.is_none(), "{needle} in {}:{}", path.display(), line.unwrap_or(0) + 1);
        }
    }
}
