//! Data classes: what kind of PHI a value is, and so what is valid, what is equal, what may be shown, and to
//! what size it is padded.
//!
//! A value is kept as it came. Its normalized form serves the check, the blind index and nothing else; its mask
//! serves consoles. The rules follow 45 CFR 164.514(b)(2)(i), which lists the identifiers; the masks are the
//! vault's own. `docs/classes.md` is the same table for users.
//!
//! Not here: who may see what (`access`), and how a normalized value becomes an index (`crypto`).

mod builtin;
mod contact;
mod custom;
mod date;
mod financial;
mod identifier;
mod mask;
mod network;
mod padding;
mod place;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::collections::BTreeMap;

pub use custom::{ClassConfigError, CustomClass, CustomMask, CustomNormalize};
pub use value::{InvalidValue, Normalized};

use super::{ClassName, Masked, Plaintext, Timestamp};
use builtin::Builtin;
use custom::Custom;
use value::{Context, has_content};

/// What a deployment may choose about the built-in classes. No `Default`: an environment has to say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassOptions {
    /// Accept what is never issued to a person: SSNs of area 999, MBIs with an `S` in position 2. Not in production.
    pub accept_synthetic: bool,
}

/// How much a mask shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaskView {
    /// The mask of the class's table row.
    Standard,
    /// As `Standard`, but a date of birth shows its year.
    Year,
}

/// The data classes of a deployment, by name.
#[derive(Debug)]
pub struct Classes {
    options: ClassOptions,
    by_name: BTreeMap<ClassName, DataClass>,
}

impl Classes {
    /// The built-in classes.
    pub fn builtin(options: ClassOptions) -> Self {
        let by_name = builtin::ALL
            .iter()
            .map(|row| {
                let name = ClassName::parse(row.name).expect("names of the table are checked by a test");
                (name.clone(), DataClass { name, options, rules: Rules::Builtin(row) })
            })
            .collect();
        Self { options, by_name }
    }

    /// Adds a site's own classes. One with a built-in's name must say that it replaces it, and may only replace
    /// one whose pattern is the site's to set.
    pub fn with_custom(mut self, custom: Vec<CustomClass>) -> Result<Self, ClassConfigError> {
        for config in custom {
            let replaces = config.replaces;
            let (name, custom) = custom::compile(config)?;
            match self.by_name.get(&name).map(|class| &class.rules) {
                Some(Rules::Custom(_)) => return Err(ClassConfigError::Twice { name }),
                Some(Rules::Builtin(row)) if !(row.site_pattern && replaces) => {
                    return Err(ClassConfigError::Shadows { name });
                }
                None if replaces => return Err(ClassConfigError::ReplacesNothing { name }),
                Some(Rules::Builtin(_)) | None => {}
            }
            let rules = Rules::Custom(Box::new(custom));
            self.by_name.insert(name.clone(), DataClass { name, options: self.options, rules });
        }
        Ok(self)
    }

    /// The class of that name.
    pub fn get(&self, name: &ClassName) -> Option<&DataClass> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &DataClass> {
        self.by_name.values()
    }
}

/// One kind of PHI.
#[derive(Debug)]
pub struct DataClass {
    name: ClassName,
    options: ClassOptions,
    rules: Rules,
}

#[derive(Debug)]
enum Rules {
    Builtin(&'static Builtin),
    Custom(Box<Custom>),
}

impl DataClass {
    /// Its name.
    pub fn name(&self) -> &ClassName {
        &self.name
    }

    /// Whether values of it can be found by value.
    pub fn indexed(&self) -> bool {
        match &self.rules {
            Rules::Builtin(row) => row.indexed,
            Rules::Custom(custom) => custom.indexed(),
        }
    }

    /// Whether its values are public, so that the mask is the value.
    pub fn public(&self) -> bool {
        match &self.rules {
            Rules::Builtin(row) => row.public,
            Rules::Custom(_) => false,
        }
    }

    /// The most bytes a value may have.
    pub fn max_bytes(&self) -> usize {
        match &self.rules {
            Rules::Builtin(row) => row.max_bytes,
            Rules::Custom(custom) => custom.max_bytes(),
        }
    }

    /// Checks a value and gives the form in which two spellings of it are equal. `now` decides what is in the
    /// future.
    pub fn normalize(&self, value: &Plaintext, now: Timestamp) -> Result<Normalized, InvalidValue> {
        // Exposed: to the class's own check; the result is as secret as the value.
        let text = value.expose();
        if !has_content(text) {
            return Err(InvalidValue::Empty);
        }
        if text.len() > self.max_bytes() {
            return Err(InvalidValue::TooLarge { most: self.max_bytes() });
        }
        let normalized = match &self.rules {
            Rules::Builtin(row) => {
                (row.normalize)(text, Context { now, accept_synthetic: self.options.accept_synthetic })?
            }
            Rules::Custom(custom) => custom.normalize(text)?,
        };
        Ok(Normalized::new(normalized))
    }

    /// What a console may show. Never fails: a value that does not fit its mask is masked whole.
    pub fn mask(&self, value: &Plaintext, view: MaskView) -> Masked {
        // Exposed: to the class's mask, which lets out no more than its table row says.
        let text = value.expose();
        Masked::new(match &self.rules {
            Rules::Builtin(row) => (row.mask)(text, view),
            Rules::Custom(custom) => custom.mask(text),
        })
    }

    /// The size to which a value of `len` bytes is padded, the four bytes of its length included.
    pub fn padded_len(&self, len: usize) -> usize {
        let least = match &self.rules {
            Rules::Builtin(row) => row.least_padded,
            Rules::Custom(custom) => custom.least_padded(),
        };
        padding::padded_len(len, least)
    }
}
