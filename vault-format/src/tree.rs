//! The Merkle tree of RFC 6962, section 2.1.
//!
//! ```text
//! empty tree = SHA-256("")
//! leaf       = SHA-256(0x00 || data)
//! node       = SHA-256(0x01 || left || right)
//! ```
//!
//! A tree of n leaves is split at the largest power of two below n. Nodes whose subtree is complete never
//! change again: they are named by `height` (0: a leaf) and `index` (from the left), and [`Nodes`] reads them.
//! Verification of proofs is that of RFC 9162, sections 2.1.3.2 and 2.1.4.2.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// A hash of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Root of the empty tree.
    pub fn empty() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// Hash of a leaf.
    pub fn leaf(data: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0x00]).chain_update(data).finalize().into())
    }

    /// Hash of a node over its two children.
    pub fn node(left: &Self, right: &Self) -> Self {
        Self(Sha256::new().chain_update([0x01]).chain_update(left.0).chain_update(right.0).finalize().into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The right edge of a growing tree: the roots of its complete subtrees, largest first. At most 64 hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    roots: Vec<Hash>,
}

impl Frontier {
    /// Of the empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a leaf, by its hash.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        // Each trailing one bit of the size is a complete subtree as large as the one at hand.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                hash = Hash::node(&left, &hash);
            }
        }
        self.roots.push(hash);
        self.size += 1;
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash {
        let mut right_to_left = self.roots.iter().rev();
        let Some(&last) = right_to_left.next() else { return Hash::empty() };
        right_to_left.fold(last, |right, left| Hash::node(left, &right))
    }
}

/// Reads nodes whose subtree is complete.
pub trait Nodes {
    /// Why a node could not be read.
    type Error;

    /// The node over the leaves `index << height .. (index + 1) << height`.
    fn node(&self, height: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Root of the tree of the first `size` leaves.
pub fn root<N: Nodes>(nodes: &N, size: u64) -> Result<Hash, N::Error> {
    if size == 0 { Ok(Hash::empty()) } else { subtree(nodes, 0, size) }
}

/// Proof that leaf `index` is in the tree of the first `size` leaves (RFC 6962 section 2.1.1), from the leaf
/// upwards. `None` if there is no such leaf.
pub fn prove_inclusion<N: Nodes>(nodes: &N, index: u64, size: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if index >= size {
        return Ok(None);
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    path.reverse();
    Ok(Some(path))
}

/// Proof that the tree of the first `old` leaves is the beginning of the tree of the first `new` (RFC 6962
/// section 2.1.2). `None` unless `0 < old <= new`.
pub fn prove_consistency<N: Nodes>(nodes: &N, old: u64, new: u64) -> Result<Option<Vec<Hash>>, N::Error> {
    if old == 0 || old > new {
        return Ok(None);
    }
    let mut path = Vec::new();
    let (mut start, mut end) = (0, new);
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            path.push(subtree(nodes, middle, end)?);
            end = middle;
        } else {
            path.push(subtree(nodes, start, middle)?);
            start = middle;
        }
    }
    // The verifier has the old root already when the old tree is a node of the new one.
    if start != 0 {
        path.push(subtree(nodes, start, end)?);
    }
    path.reverse();
    Ok(Some(path))
}

/// Whether `path` proves that `leaf` stands at `index` in the tree of `size` leaves with that root.
pub fn verify_inclusion(path: &[Hash], leaf: Hash, index: u64, size: u64, root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in path {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = Hash::node(sibling, &hash);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            hash = Hash::node(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && hash == *root
}

/// Whether `path` proves that the tree of `old` leaves is the beginning of the tree of `new` leaves.
pub fn verify_consistency(path: &[Hash], old: u64, new: u64, old_root: &Hash, new_root: &Hash) -> bool {
    if old == 0 || old >= new {
        return old == new && path.is_empty() && old_root == new_root;
    }
    let (seed, rest) = if old.is_power_of_two() {
        (*old_root, path)
    } else {
        let Some((first, rest)) = path.split_first() else { return false };
        (*first, rest)
    };
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        (node, last) = (node >> 1, last >> 1);
    }
    let (mut from_old, mut from_new) = (seed, seed);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            from_old = Hash::node(sibling, &from_old);
            from_new = Hash::node(sibling, &from_new);
            while node & 1 == 0 && node != 0 {
                (node, last) = (node >> 1, last >> 1);
            }
        } else {
            from_new = Hash::node(&from_new, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    last == 0 && from_old == *old_root && from_new == *new_root
}

/// The largest power of two below `n`, which is at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Root over the leaves `start..end`, which is a subtree of some tree: `start` is a multiple of the largest
/// power of two in `end - start`.
fn subtree<N: Nodes>(nodes: &N, start: u64, end: u64) -> Result<Hash, N::Error> {
    let leaves = end - start;
    if leaves.is_power_of_two() {
        let height = leaves.trailing_zeros();
        return nodes.node(height as u8, start >> height);
    }
    let middle = start + split(leaves);
    Ok(Hash::node(&subtree(nodes, start, middle)?, &subtree(nodes, middle, end)?))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// Nodes straight from the definition.
    struct Leaves(Vec<Hash>);

    impl Nodes for Leaves {
        type Error = Infallible;

        fn node(&self, height: u8, index: u64) -> Result<Hash, Infallible> {
            let width = 1 << height;
            let start = index as usize * width;
            Ok(by_definition(&self.0[start..start + width]))
        }
    }

    /// MTH of RFC 6962 section 2.1, word for word.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::empty(),
            [one] => *one,
            many => {
                let mut k = 1;
                while k * 2 < many.len() {
                    k *= 2;
                }
                Hash::node(&by_definition(&many[..k]), &by_definition(&many[k..]))
            }
        }
    }

    fn leaves(n: u64) -> Leaves {
        Leaves((0..n).map(|i| Hash::leaf(&i.to_be_bytes())).collect())
    }

    fn frontier(leaves: &[Hash]) -> Frontier {
        let mut frontier = Frontier::new();
        for leaf in leaves {
            frontier.push(*leaf);
        }
        frontier
    }

    /// Roots of the first n of the eight inputs of the Certificate Transparency reference implementation.
    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let inputs = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let mut frontier = Frontier::new();
        assert_eq!(frontier.root().to_string(), roots[0]);
        for (input, root) in inputs.iter().zip(&roots[1..]) {
            frontier.push(Hash::leaf(&hex::decode(input).unwrap()));
            assert_eq!(frontier.root().to_string(), *root);
        }
    }

    #[test]
    fn the_frontier_gives_the_root_of_the_definition_at_every_size() {
        let all = leaves(300).0;
        for n in 0..all.len() {
            let frontier = frontier(&all[..n]);
            assert_eq!(frontier.root(), by_definition(&all[..n]), "{n}");
            assert_eq!(frontier.size(), n as u64);
            assert_eq!(root(&Leaves(all[..n].to_vec()), n as u64), Ok(frontier.root()));
        }
    }

    #[test]
    fn every_proof_of_small_trees_verifies() {
        for size in 1..40 {
            let tree = leaves(size);
            let root = by_definition(&tree.0);
            for index in 0..size {
                let path = prove_inclusion(&tree, index, size).unwrap().unwrap();
                assert!(
                    verify_inclusion(&path, tree.0[index as usize], index, size, &root),
                    "{index} {size}"
                );
            }
            for old in 1..=size {
                let path = prove_consistency(&tree, old, size).unwrap().unwrap();
                let old_root = by_definition(&tree.0[..old as usize]);
                assert!(verify_consistency(&path, old, size, &old_root, &root), "{old} {size}");
            }
        }
    }

    #[test]
    fn there_is_no_proof_of_what_is_not_there() {
        let tree = leaves(3);
        assert_eq!(prove_inclusion(&tree, 3, 3), Ok(None));
        assert_eq!(prove_consistency(&tree, 0, 3), Ok(None));
        assert_eq!(prove_consistency(&tree, 4, 3), Ok(None));
        let root = by_definition(&tree.0);
        assert!(!verify_consistency(&[], 0, 3, &Hash::empty(), &root));
        assert!(!verify_consistency(&[], 3, 2, &root, &root));
    }

    proptest! {
        #[test]
        fn an_altered_inclusion_proof_does_not_verify(size in 1_u64..200, at in any::<u64>(), flip in any::<(usize, u8)>()) {
            let (tree, index) = (leaves(size), at % size);
            let root = by_definition(&tree.0);
            let leaf = tree.0[index as usize];
            let path = prove_inclusion(&tree, index, size).unwrap().unwrap();
            prop_assert!(verify_inclusion(&path, leaf, index, size, &root));
            prop_assert!(!verify_inclusion(&path, Hash::leaf(b"other"), index, size, &root));
            prop_assert!(!verify_inclusion(&[&path[..], &[leaf]].concat(), leaf, index, size, &root));
            for other in (0..size).filter(|&i| i != index) {
                prop_assert!(!verify_inclusion(&path, leaf, other, size, &root));
            }
            if !path.is_empty() {
                prop_assert!(!verify_inclusion(&path[1..], leaf, index, size, &root));
                let mut altered = path.clone();
                altered[flip.0 % path.len()].0[usize::from(flip.1 >> 3)] ^= 1 << (flip.1 & 7);
                prop_assert!(!verify_inclusion(&altered, leaf, index, size, &root));
            }
        }

        #[test]
        fn an_altered_consistency_proof_does_not_verify(new in 2_u64..200, at in any::<u64>(), flip in any::<(usize, u8)>()) {
            let (tree, old) = (leaves(new), 1 + at % (new - 1));
            let (old_root, root) = (by_definition(&tree.0[..old as usize]), by_definition(&tree.0));
            let path = prove_consistency(&tree, old, new).unwrap().unwrap();
            prop_assert!(verify_consistency(&path, old, new, &old_root, &root));
            prop_assert!(!verify_consistency(&path, old, new, &root, &root));
            prop_assert!(!verify_consistency(&path, old, new, &old_root, &old_root));
            prop_assert!(!verify_consistency(&path[1..], old, new, &old_root, &root));
            prop_assert!(!verify_consistency(&[&path[..], &[root]].concat(), old, new, &old_root, &root));
            let mut altered = path.clone();
            altered[flip.0 % path.len()].0[usize::from(flip.1 >> 3)] ^= 1 << (flip.1 & 7);
            prop_assert!(!verify_consistency(&altered, old, new, &old_root, &root));
        }
    }
}
