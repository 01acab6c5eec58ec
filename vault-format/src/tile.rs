//! The tree cut into files: C2SP tlog-tiles (<https://c2sp.org/tlog-tiles>).
//!
//! ```text
//! tile/<L>/<N>[.p/<W>]        tile: W (256 if not said) hashes of 32 bytes, those of height 8 * L
//! tile/entries/<N>[.p/<W>]    entry bundle: W entries, each length(2, big-endian) | bytes
//! ```
//!
//! `N` is written in groups of three digits, all but the last with an `x` before them: `x001/x234/067`.
//! Only the rightmost tile of a level may be partial; a level without hashes has no tile.

use std::fmt;

use crate::tree::{Frontier, Hash};

/// Hashes in a whole tile, entries in a whole bundle.
pub const WIDTH: u16 = 256;

/// The most bytes an entry may have.
pub const MAX_ENTRY: usize = 65_535;

/// What a file of the layout holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Hashes of a level; 0 is that of the leaves. At most 63 by the specification, at most 7 in any real log.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// A tile or an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// What it holds.
    pub kind: Kind,
    /// Its place, from the left.
    pub index: u64,
    /// How many hashes or entries: 1 to [`WIDTH`].
    pub width: u16,
}

impl Tile {
    /// Parses a path, in its only written form.
    pub fn parse(path: &str) -> Option<Self> {
        let (kind, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let kind = match kind {
            "entries" => Kind::Entries,
            level => Kind::Hashes(level.parse().ok().filter(|&level: &u8| level < 64)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, width.parse().ok()?),
            None => (rest, WIDTH),
        };
        let digits: String = index.chars().filter(char::is_ascii_digit).collect();
        let tile = Self { kind, index: digits.parse().ok()?, width };
        // The one written form: this settles groups, leading zeros and the width's bounds.
        ((1..=WIDTH).contains(&width) && tile.to_string() == path).then_some(tile)
    }

    /// Whether a log of `size` entries has this very tile: there, and as wide as it can be.
    pub fn belongs(&self, size: u64) -> bool {
        let hashes = match self.kind {
            Kind::Entries => size,
            Kind::Hashes(level) => size.checked_shr(8 * u32::from(level)).unwrap_or(0),
        };
        let whole = hashes / u64::from(WIDTH);
        let rest = hashes % u64::from(WIDTH);
        if self.index < whole {
            self.width == WIDTH
        } else {
            self.index == whole && rest > 0 && u64::from(self.width) == rest
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hashes(level) => write!(f, "tile/{level}/")?,
            Kind::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        for group in groups[1..].iter().rev() {
            write!(f, "x{group:03}/")?;
        }
        write!(f, "{:03}", groups[0])?;
        if self.width < WIDTH { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

/// The entry is longer than [`MAX_ENTRY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry of more than 65535 bytes")]
pub struct EntryTooLong;

/// The bytes are not an entry bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} of the bundle is cut off")]
pub struct MalformedBundle {
    /// Which entry, counted from 0 within the bundle.
    pub entry: usize,
}

/// Appends an entry to a bundle.
pub fn append_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

/// Entries of a bundle.
pub fn parse_bundle(mut bundle: &[u8]) -> Result<Vec<&[u8]>, MalformedBundle> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let cut = MalformedBundle { entry: entries.len() };
        let (length, rest) = bundle.split_first_chunk::<2>().ok_or(cut)?;
        let (entry, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(cut)?;
        entries.push(entry);
        bundle = rest;
    }
    Ok(entries)
}

/// Splits a tile's bytes into its hashes; `None` if there is no hash, a part of one, or more than [`WIDTH`].
pub fn parse_hashes(tile: &[u8]) -> Option<Vec<Hash>> {
    let (hashes, rest) = tile.as_chunks::<32>();
    let well_formed = rest.is_empty() && (1..=usize::from(WIDTH)).contains(&hashes.len());
    well_formed.then(|| hashes.iter().map(|hash| Hash(*hash)).collect())
}

/// Root over the hashes of a tile.
pub fn tile_root(hashes: &[Hash]) -> Hash {
    let mut frontier = Frontier::new();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}

/// The rightmost, partial tile of every level: all that is needed to let the tiles grow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    /// Level by level, each with fewer than [`WIDTH`] hashes.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// Of the empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a log of `size` entries: `levels[L]` are the hashes of the partial tile of level L. `None` if their
    /// numbers are not those of a log of that size.
    pub fn from_levels(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let mut rest = size;
        for level in &levels {
            if level.len() as u64 != rest % u64::from(WIDTH) {
                return None;
            }
            rest /= u64::from(WIDTH);
        }
        (rest == 0).then_some(Self { size, levels })
    }

    /// How many entries the log has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf, by its hash; hands every tile that becomes whole to `whole`.
    pub fn push(&mut self, leaf: Hash, mut whole: impl FnMut(Tile, &[Hash])) {
        self.size += 1;
        let (mut level, mut hash) = (0, leaf);
        loop {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(usize::from(WIDTH)));
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if hashes.len() < usize::from(WIDTH) {
                return;
            }
            let kind = Kind::Hashes(level as u8);
            whole(Tile { kind, index: (self.size >> (8 * (level + 1))) - 1, width: WIDTH }, hashes);
            hash = tile_root(hashes);
            hashes.clear();
            level += 1;
        }
    }

    /// The partial tiles, one a level that has any.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        self.levels.iter().enumerate().filter(|(_, hashes)| !hashes.is_empty()).map(|(level, hashes)| {
            let index = self.size >> (8 * (level + 1));
            let tile = Tile { kind: Kind::Hashes(level as u8), index, width: hashes.len() as u16 };
            (tile, hashes.as_slice())
        })
    }

    /// Root of the tree.
    pub fn root(&self) -> Hash {
        // What lies right of a level's whole tiles is one more, smaller, subtree beside its hashes.
        let mut right: Option<Hash> = None;
        for hashes in &self.levels {
            let mut frontier = Frontier::new();
            for hash in hashes.iter().chain(right.as_ref()) {
                frontier.push(*hash);
            }
            right = (frontier.size() > 0).then(|| frontier.root());
        }
        right.unwrap_or_else(Hash::empty)
    }
}

/// The bytes of a tile.
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let hashes = |level, index, width| Tile { kind: Kind::Hashes(level), index, width };
        let entries = |index, width| Tile { kind: Kind::Entries, index, width };
        for (tile, path) in [
            (hashes(0, 0, 256), "tile/0/000"),
            (hashes(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (hashes(0, 1_234_067, 12), "tile/0/x001/x234/067.p/12"),
            (hashes(1, 5, 1), "tile/1/005.p/1"),
            (hashes(63, 0, 255), "tile/63/000.p/255"),
            (entries(999, 256), "tile/entries/999"),
            (entries(1000, 256), "tile/entries/x001/000"),
            (entries(1_000_000, 3), "tile/entries/x001/x000/000.p/3"),
        ] {
            assert_eq!(tile.to_string(), path);
            assert_eq!(Tile::parse(path), Some(tile));
        }
    }

    #[test]
    fn other_spellings_of_a_path_are_refused() {
        for bad in [
            "",
            "tile",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/00/000",
            "tile/64/000",
            "tile/-1/000",
            "tile/0/x000/001",
            "tile/0/001/x002",
            "tile/0/x001",
            "tile/0/000.p/0",
            "tile/0/000.p/256",
            "tile/0/000.p/012",
            "tile/0/000.p",
            "tile/0/000/",
            "/tile/0/000",
            "tile/entry/000",
            "tile/0/000.p/+1",
            "tile/+1/000",
            "tile/0/99999999999999999999999",
            "tile/0/000 ",
        ] {
            assert_eq!(Tile::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn bundles_keep_entries_and_show_a_cut() {
        let mut bundle = Vec::new();
        let longest = vec![7; MAX_ENTRY];
        for entry in [b"", &b"abc"[..], &longest] {
            append_entry(&mut bundle, entry).unwrap();
        }
        assert_eq!(append_entry(&mut bundle, &vec![0; MAX_ENTRY + 1]), Err(EntryTooLong));
        assert_eq!(bundle[..7], [0, 0, 0, 3, b'a', b'b', b'c']);
        assert_eq!(parse_bundle(&bundle).unwrap(), [b"", &b"abc"[..], &longest]);
        assert_eq!(parse_bundle(&bundle[..bundle.len() - 1]), Err(MalformedBundle { entry: 2 }));
        assert_eq!(parse_bundle(&bundle[..3]), Err(MalformedBundle { entry: 1 }));
    }

    #[test]
    fn the_edge_makes_every_tile_and_the_root() {
        let (mut edge, mut frontier, mut tiles) = (Edge::new(), Frontier::new(), BTreeMap::new());
        for i in 0..66_000_u64 {
            let leaf = Hash::leaf(&i.to_be_bytes());
            edge.push(leaf, |tile, hashes| assert_eq!(tiles.insert(tile, hashes.to_vec()), None));
            frontier.push(leaf);
            if i % 997 == 0 || i > 65_500 && i < 65_600 {
                assert_eq!(edge.root(), frontier.root(), "{i}");
            }
        }
        let size = edge.size();
        for (tile, hashes) in edge.partial() {
            assert!(tile.belongs(size));
            tiles.insert(tile, hashes.to_vec());
        }
        assert_eq!(tiles.len(), 258 + 2 + 1);
        assert!(tiles.keys().all(|tile| tile.belongs(size)));
        let level_1 = &tiles[&Tile { kind: Kind::Hashes(1), index: 0, width: WIDTH }];
        let below = &tiles[&Tile { kind: Kind::Hashes(0), index: 7, width: WIDTH }];
        assert_eq!(level_1[7], tile_root(below));
    }

    proptest! {
        #[test]
        fn only_what_is_displayed_parses(path in "tile/[0-9]{1,2}/(x[0-9]{3}/){0,2}[0-9]{3}(\\.p/[0-9]{1,3})?") {
            if let Some(tile) = Tile::parse(&path) {
                prop_assert_eq!(tile.to_string(), path);
            }
        }

        #[test]
        fn an_edge_is_made_again_from_its_levels(size in 0_u64..70_000) {
            let mut edge = Edge::new();
            for i in 0..size {
                edge.push(Hash([i as u8; 32]), |_, _| ());
            }
            prop_assert_eq!(Edge::from_levels(size, edge.levels.clone()), Some(edge.clone()));
            prop_assert_eq!(Edge::from_levels(size + 1, edge.levels), None);
        }
    }
}
