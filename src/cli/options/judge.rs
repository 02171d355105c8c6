//! How much worse version 2 may be, and how sure the verdict is to be.

use std::time::Duration;

use clap::{ArgAction, Args, builder::BoolishValueParser};

use super::super::values;
use super::first_given;
use crate::judge::{LatencyMargin, Tolerances};

/// What the verdict is held against; `docs/verdict.md` explains each. What is not given stays as it is.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Verdict")]
pub struct ToleranceFlags {
    /// The chance of a wrong verdict: of rejecting a version 2 that is as good as version 1, however often one looks, and of
    /// promoting one that is worse than allowed in any one thing. Default: 5%.
    #[arg(
        long,
        value_name = "CHANCE",
        value_parser = chance,
        env = "SHADOWTAP_ALPHA"
    )]
    alpha: Option<f64>,

    /// Each endpoint, and each field in it, may differ so much more often than version 1 from itself. Smaller needs more
    /// requests: 1% about 360 at each endpoint, 0.1% about 3,600. Default: 1%.
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = chance,
        env = "SHADOWTAP_MAX_DIFFERENCE"
    )]
    max_difference: Option<f64>,

    /// Version 2 may fail so many more of all requests than version 1. Smaller needs more requests: 0.2% about 1,800 in all.
    /// Default: 0.2%.
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = chance,
        env = "SHADOWTAP_MAX_ERRORS"
    )]
    max_errors: Option<f64>,

    /// So many more of version 2's answers may be slower than version 1's p50 and p90 with the margin added; a fifth of it for
    /// p99. Default: 2.5%.
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = chance,
        env = "SHADOWTAP_MAX_SLOW"
    )]
    max_slow: Option<f64>,

    /// With less of the traffic judged than this, the verdict is to continue, whatever the numbers say. Default: 99%.
    #[arg(
        long,
        value_name = "SHARE",
        value_parser = values::share,
        env = "SHADOWTAP_MIN_COMPLETENESS"
    )]
    min_completeness: Option<f64>,

    /// Promote although some endpoints had too few requests to say anything about them.
    #[arg(
        long,
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new(),
        env = "SHADOWTAP_ALLOW_UNCOVERED"
    )]
    allow_uncovered: bool,
}

impl ToleranceFlags {
    /// What is given here, and the rest from `others`.
    #[must_use]
    pub fn over(self, others: Tolerances) -> Tolerances {
        Tolerances {
            alpha: self.alpha.unwrap_or(others.alpha),
            max_difference: self.max_difference.unwrap_or(others.max_difference),
            max_errors: self.max_errors.unwrap_or(others.max_errors),
            max_slow: self.max_slow.unwrap_or(others.max_slow),
            min_completeness: self.min_completeness.unwrap_or(others.min_completeness),
            allow_uncovered: self.allow_uncovered || others.allow_uncovered,
        }
    }

    /// The first of them that was given.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        first_given([
            ("--alpha", self.alpha.is_some()),
            ("--max-difference", self.max_difference.is_some()),
            ("--max-errors", self.max_errors.is_some()),
            ("--max-slow", self.max_slow.is_some()),
            ("--min-completeness", self.min_completeness.is_some()),
            ("--allow-uncovered", self.allow_uncovered),
        ])
    }
}

/// Up to where version 2 does not count as slower.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Verdict")]
pub struct MarginFlags {
    /// Version 2 is slower where it takes longer than version 1 by more than this share and --slower-floor.
    #[arg(
        long,
        value_name = "SHARE",
        default_value = "10%",
        value_parser = values::share,
        env = "SHADOWTAP_MAX_SLOWER"
    )]
    max_slower: f64,

    /// See --max-slower: short times are not measured as well as long ones. Without --control it counts five times, since
    /// version 1 is timed by its packets then, version 2 by this program's connection.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "1ms",
        value_parser = values::duration,
        env = "SHADOWTAP_SLOWER_FLOOR"
    )]
    slower_floor: Duration,
}

impl MarginFlags {
    /// The margin.
    #[must_use]
    pub fn margin(self) -> LatencyMargin {
        let margin = LatencyMargin {
            stretch: self.max_slower,
            ..LatencyMargin::default()
        };
        margin.with_floor(self.slower_floor)
    }

    /// The first of them that is not as it is without them.
    pub(super) fn first_given(self) -> Option<&'static str> {
        let (margin, usual) = (self.margin(), LatencyMargin::default());
        if margin.with_floor(Duration::ZERO) != usual.with_floor(Duration::ZERO) {
            return Some("--max-slower");
        }
        (margin != usual).then_some("--slower-floor")
    }
}

fn chance(text: &str) -> Result<f64, String> {
    let chance = values::share(text)?;
    if chance > 0.0 && chance < 1.0 {
        return Ok(chance);
    }
    Err(format!(
        "{text}: it has to be more than 0 and less than 100%"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_stays() {
        let flags = ToleranceFlags {
            max_errors: Some(0.5),
            ..ToleranceFlags::default()
        };
        let others = Tolerances {
            alpha: 0.1,
            allow_uncovered: true,
            ..Tolerances::default()
        };
        let merged = flags.over(others);
        assert_eq!(
            merged,
            Tolerances {
                max_errors: 0.5,
                ..others
            }
        );
        assert!(chance("0").is_err() && chance("100%").is_err());
        assert_eq!(chance("0.2%"), Ok(0.002));
    }
}
