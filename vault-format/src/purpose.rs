//! Purposes of use: codes of HL7 v3 ActReason (`http://terminology.hl7.org/CodeSystem/v3-ActReason`).

use std::fmt;

macro_rules! purposes {
    ($($variant:ident $code:literal $text:literal $exclusion:expr;)*) => {
        /// Why a value is asked for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Purpose {
            $(#[doc = $text] $variant,)*
        }

        impl Purpose {
            /// All of them, in the order of the documentation.
            pub const ALL: &[Purpose] = &[$(Purpose::$variant),*];

            /// The ActReason code.
            pub const fn code(self) -> &'static str {
                match self { $(Purpose::$variant => $code),* }
            }

            /// What the code means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Purpose::$variant => $text),* }
            }

            /// Why a disclosure for this purpose is left out of an accounting (45 CFR 164.528(a)(1)), if it is.
            pub const fn accounting_exclusion(self) -> Option<&'static str> {
                match self { $(Purpose::$variant => $exclusion),* }
            }

            /// Parses a code, exactly as written in the code system.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Purpose::$variant),)* _ => None }
            }
        }
    };
}

purposes! {
    Treatment "TREAT" "treatment" Some("treatment");
    EmergencyTreatment "ETREAT" "emergency treatment" Some("treatment");
    EmergencyRoomTreatment "ERTREAT" "emergency room treatment" Some("treatment");
    BreakTheGlass "BTG" "break the glass" None;
    Payment "HPAYMT" "healthcare payment" Some("payment");
    Coverage "COVERAGE" "coverage under policy or program" Some("payment");
    Operations "HOPERAT" "healthcare operations" Some("operations");
    SystemAdministration "HSYSADMIN" "health system administration" Some("operations");
    QualityImprovement "HQUALIMP" "health quality improvement" Some("operations");
    Compliance "HCOMPL" "health compliance" Some("operations");
    Legal "HLEGAL" "legal" None;
    RecordManagement "RECORDMGT" "records management" Some("operations");
    PatientAdministration "PATADMIN" "patient administration" Some("operations");
    CareManagement "CAREMGT" "care management" Some("treatment");
    PatientRequest "PATRQT" "patient requested" Some("individual");
    FamilyRequest "FAMRQT" "family requested" None;
    PowerOfAttorney "PWATRNY" "power of attorney" None;
    SupportNetwork "SUPNWK" "support network" None;
    PublicHealth "PUBHLTH" "public health" None;
    Research "HRESCH" "healthcare research" None;
    ClinicalTrial "CLINTRCH" "clinical trial research" None;
    Marketing "HMARKT" "healthcare marketing" None;
    Disaster "DISASTER" "disaster" None;
    Threat "THREAT" "threat" None;
    Test "HTEST" "test health data" None;
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_to_itself_and_nothing_else_does() {
        for &purpose in Purpose::ALL {
            assert_eq!(Purpose::parse(purpose.code()), Some(purpose));
        }
        for bad in ["", "treat", " TREAT", "TREAT ", "NOSUCH"] {
            assert_eq!(Purpose::parse(bad), None, "{bad:?}");
        }
    }
}
