//! Evidence that grows with the counts, and means the same at every look.
//!
//! Each request is `+1` when something happened to version 2 only, `-1` when it happened to the reference only, and `0`
//! otherwise. Somebody who bets a share `λ` of what they have against "the mean is at most `m`" multiplies what they have
//! by `1 + λ(d - m)`. If the claim is right they do not get richer on average, whatever they have seen before, so that
//! the chance of *ever* having `1/α` times as much is at most `α` (Ville's inequality). The mean of several who bet
//! different shares is as good a bet, and hardly worse than the best of them. What they have depends on the counts
//! alone, not on their order: so it can be computed from sums over pods, at any time.
//!
//! With `m = 0` requests in which nothing happened to one alone do not matter: that is the sign test of discordant pairs,
//! without its fixed number of pairs. For other `m` the claim may also be about the mean over the requests so far, of each
//! one's chances given the past: the product of `1 + λ(μ - m)` is at most 1 when the mean of the `μ` is `m`, since the
//! logarithm is concave. Requests need not be alike, nor independent.

/// How often what happened. Not whole numbers where something is extrapolated.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Counts {
    /// `+1`.
    pub(super) up: f64,
    /// `-1`.
    pub(super) down: f64,
    /// `0`.
    pub(super) level: f64,
}

/// Bets against a claim on the mean.
#[derive(Clone, Debug)]
pub(super) struct Bets([Bet; BETS]);

/// One bet: natural logarithms of its share of the stakes, and of the factor for each outcome.
#[derive(Clone, Copy, Debug, Default)]
struct Bet {
    stake: f64,
    up: f64,
    down: f64,
    level: f64,
}

/// The largest bet, and smaller ones, each a half of the last but one.
const BETS: usize = 25;

impl Counts {
    /// Of `requests`.
    pub(super) const fn new(up: u64, down: u64, requests: u64) -> Self {
        let level = requests.saturating_sub(up).saturating_sub(down);
        Self {
            up: float(up),
            down: float(down),
            level: float(level),
        }
    }

    /// Without so many of the ups, which are the reason why it is looked at: see [`family`].
    pub(super) fn without(self, selected: u64) -> Self {
        Self {
            up: (self.up - float(selected)).max(0.0),
            ..self
        }
    }

    pub(super) fn requests(&self) -> f64 {
        self.up + self.down + self.level
    }

    /// The mean; 0 of nothing.
    pub(super) fn mean(&self) -> f64 {
        (self.up - self.down) / self.requests().max(1.0)
    }

    pub(super) fn times(&self, factor: f64) -> Self {
        Self {
            up: self.up * factor,
            down: self.down * factor,
            level: self.level * factor,
        }
    }
}

impl Bets {
    /// Against "the mean is at most `most`": much evidence says that it is larger.
    pub(super) fn against_at_most(most: f64) -> Self {
        Self::new(1.0 / (1.0 + most), |share, outcome| {
            share * (outcome - most)
        })
    }

    /// Against "the mean is at least `least`": much evidence says that it is smaller.
    pub(super) fn against_at_least(least: f64) -> Self {
        Self::new(1.0 / (1.0 - least), |share, outcome| {
            share * (least - outcome)
        })
    }

    /// `gain` says what a share brings at an outcome; with the largest share everything may be lost, and no more.
    fn new(largest: f64, gain: impl Fn(f64, f64) -> f64) -> Self {
        let mut bets = [Bet::default(); BETS];
        let mut share = largest;
        for (index, bet) in bets.iter_mut().enumerate() {
            let factor = |outcome| gain(share, outcome).max(-1.0).ln_1p();
            let stake = if index == 0 {
                0.5
            } else {
                0.5 / (float(BETS as u64) - 1.0)
            };
            *bet = Bet {
                stake: stake.ln(),
                up: factor(1.0),
                down: factor(-1.0),
                level: factor(0.0),
            };
            share *= std::f64::consts::FRAC_1_SQRT_2;
        }
        Self(bets)
    }

    /// The natural logarithm of what the bets have become; 0 at the beginning.
    pub(super) fn log(&self, counts: &Counts) -> f64 {
        self.log_from(f64::NEG_INFINITY, counts)
    }

    /// The same where it is at least `least`. Where it is less, so is the result, which is only an upper bound then: that is
    /// much cheaper.
    pub(super) fn log_from(&self, least: f64, counts: &Counts) -> f64 {
        // Nothing times the logarithm of nothing is nothing here.
        let times = |count: f64, log: f64| if count == 0.0 { 0.0 } else { count * log };
        let mut logs = [0.0; BETS];
        let mut best = f64::NEG_INFINITY;
        for (log, bet) in logs.iter_mut().zip(&self.0) {
            *log = bet.stake
                + times(counts.up, bet.up)
                + times(counts.down, bet.down)
                + times(counts.level, bet.level);
            best = best.max(*log - bet.stake);
        }
        // All of them together have not more than if everything were staked on the best one.
        if best < least - ROUNDING {
            return best;
        }
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return largest;
        }
        largest
            + logs
                .iter()
                .map(|log| (log - largest).exp())
                .sum::<f64>()
                .ln()
    }

    /// How many more requests it takes to get to `target` if they go like those before; `None` if they never do.
    pub(super) fn needs(&self, counts: &Counts, target: f64) -> Option<u64> {
        if self.log_from(target, counts) >= target {
            return Some(0);
        }
        let so_far = counts.requests();
        least(|more| {
            let later = if so_far == 0.0 {
                Counts {
                    level: float(more),
                    ..Counts::default()
                }
            } else {
                counts.times(1.0 + float(more) / so_far)
            };
            self.log_from(target, &later) >= target
        })
    }
}

/// The least number from 1 on that is enough; `None` if none is. Evidence is a mean of exponentials of straight lines, or the
/// least of such: once it is above its target, it stays there.
pub(super) fn least(is_enough: impl Fn(u64) -> bool) -> Option<u64> {
    let mut enough = 1u64;
    while !is_enough(enough) {
        enough *= 2;
        if enough > FAR_TOO_MANY {
            return None;
        }
    }
    let mut too_few = enough / 2;
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        if is_enough(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    Some(enough)
}

const FAR_TOO_MANY: u64 = 1 << 40;

/// Bounds that are that near are not trusted.
const ROUNDING: f64 = 1e-9;

/// Two sorts of requests: those of the one tell how often version 2 differs, those of the other how often the reference does.
///
/// Let the reference differ in a share `q` of all of them. Nobody knows it, but whatever it is: if version 2's share is at
/// most `q + m`, then the mean of a bet against that and of one against "the reference's is at least `q`" is a fair bet, and so
/// the least of these means over all `q` is evidence against the claim. The first bet falls with `q` and the second one rises,
/// so that the least is at least half of what both have where they meet.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Apart {
    /// `up`: version 2 differed.
    pub(super) v2: Counts,
    /// `up`: the reference differed.
    pub(super) reference: Counts,
}

impl Apart {
    /// The natural logarithm of the evidence against "version 2's share is larger by at most `most`".
    pub(super) fn against_at_most(&self, most: f64) -> f64 {
        self.at_most(most).log()
    }

    /// An upper bound of [`Self::against_at_most`], near to it where there is little evidence, and much cheaper.
    pub(super) fn bound_against_at_most(&self, most: f64) -> f64 {
        self.at_most(most).bound(&self.reference)
    }

    /// Whether the natural logarithm of the evidence against "version 2's share is larger by at least `least`" is at least
    /// `target`.
    pub(super) fn shows_less(&self, least: f64, target: f64) -> bool {
        let crossing = self.at_least(least);
        crossing.bound(&self.reference) >= target - ROUNDING && crossing.log() >= target
    }

    #[cfg(test)]
    fn against_at_least(&self, least: f64) -> f64 {
        self.at_least(least).log()
    }

    fn at_most(&self, most: f64) -> Crossing<impl Fn(f64) -> f64, impl Fn(f64) -> f64> {
        Crossing {
            end: WIDEST,
            falling: move |q| Bets::against_at_most(q + most).log(&self.v2),
            rising: |q| Bets::against_at_least(q).log(&self.reference),
        }
    }

    fn at_least(&self, least: f64) -> Crossing<impl Fn(f64) -> f64, impl Fn(f64) -> f64> {
        Crossing {
            end: (WIDEST - least).max(0.0),
            falling: |q| Bets::against_at_most(q).log(&self.reference),
            rising: move |q| Bets::against_at_least(q + least).log(&self.v2),
        }
    }

    pub(super) fn times(&self, factor: f64) -> Self {
        Self {
            v2: self.v2.times(factor),
            reference: self.reference.times(factor),
        }
    }
}

/// Two bets that depend on what nobody knows, a number between 0 and `end`: the one falls with it, and the other one rises.
struct Crossing<Falling, Rising> {
    end: f64,
    falling: Falling,
    rising: Rising,
}

impl<Falling: Fn(f64) -> f64, Rising: Fn(f64) -> f64> Crossing<Falling, Rising> {
    /// Half of the least that the larger of the two may be, as logarithms, from below.
    fn log(&self) -> f64 {
        let (falling, rising) = (&self.falling, &self.rising);
        let (mut low, mut high) = (0.0, self.end);
        if rising(low) >= falling(low) {
            return rising(low) + HALF;
        }
        for _ in 0..20 {
            let middle = f64::midpoint(low, high);
            if rising(middle) >= falling(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        falling(high).max(rising(low)) + HALF
    }

    /// What the larger of the two is where the number probably is: the least is not more.
    fn bound(&self, reference: &Counts) -> f64 {
        let probably = (reference.up + 1.0) / (reference.requests() + 1.0);
        let probably = probably.min(self.end);
        (self.falling)(probably).max((self.rising)(probably)) + HALF
    }
}

const HALF: f64 = -std::f64::consts::LN_2;

/// The mean of two sorts of evidence, as logarithms.
pub(super) fn mean(one: f64, other: f64) -> f64 {
    let larger = one.max(other);
    if larger == f64::NEG_INFINITY {
        return larger;
    }
    larger + ((one - larger).exp() + (other - larger).exp()).ln() - std::f64::consts::LN_2
}

/// Between which ends the mean is, at every look, but for a chance of `alpha` at either.
pub(super) fn interval(counts: &Counts, alpha: f64) -> (f64, f64) {
    let target = -alpha.ln();
    let mean = counts.mean();
    let is_above = |end: f64| Bets::against_at_most(end).log(counts) >= target;
    let is_below = |end: f64| Bets::against_at_least(end).log(counts) >= target;
    let low = edge(mean, -WIDEST, is_above);
    let high = edge(mean, WIDEST, is_below);
    (low, high)
}

const WIDEST: f64 = 0.9999;

/// The place between `inside` and `outside` from which on `excluded` holds.
fn edge(inside: f64, outside: f64, excluded: impl Fn(f64) -> bool) -> f64 {
    let inside = inside.clamp(-WIDEST, WIDEST);
    if !excluded(outside) {
        return outside.signum();
    }
    let (mut inside, mut outside) = (inside, outside);
    for _ in 0..20 {
        let middle = f64::midpoint(inside, outside);
        if excluded(middle) {
            outside = middle;
        } else {
            inside = middle;
        }
    }
    outside
}

/// Which of a family of claims are refuted by their evidence (natural logarithms), so that the expected share of mistakes
/// among these is at most `alpha` (e-BH: it needs no independence). Where all claims are right, any refutation is a
/// mistake, so `alpha` is the chance of there being one.
///
/// See [`Growth`] for families that have grown.
pub(super) fn family(evidence: &[f64], alpha: f64, growth: Growth) -> Vec<bool> {
    let size = evidence.len();
    let price = (float(size as u64) * growth.factor(size) / alpha).ln();
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| evidence[b].total_cmp(&evidence[a]));
    let is_enough = |rank: usize| evidence[order[rank]] >= price - float(rank as u64 + 1).ln();
    let refuted = (0..size).rev().find(|&rank| is_enough(rank));
    let mut flags = vec![false; size];
    for &index in &order[..refuted.map_or(0, |rank| rank + 1)] {
        flags[index] = true;
    }
    flags
}

/// How much more the claims of a family have to show that may have grown on the way to at most `most` claims.
///
/// It may have as long as the evidence of each began after it had joined. A newcomer brings its stake of 1 with it and raises
/// the mean of a family that has lost some of its own: the k-th raises it by at most 1/k. Claims have therefore to show
/// `1 + 1/2 + … + 1/most` times as much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    most: usize,
    factor: f64,
}

impl Growth {
    /// To so many.
    pub(super) const fn to(most: usize) -> Self {
        let (mut factor, mut k) = (0.0, 1);
        while k <= most {
            factor += 1.0 / float(k as u64);
            k += 1;
        }
        Self { most, factor }
    }

    /// Merged tallies may have more claims than one alone.
    fn factor(self, size: usize) -> f64 {
        if size > self.most {
            return Self::to(size).factor;
        }
        self.factor
    }

    /// The natural logarithm of the evidence below which no claim of such a family is ever refuted.
    pub(super) fn least(self, alpha: f64) -> f64 {
        (self.factor / alpha).ln()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binomial(n: u64, k: u64) -> f64 {
        (1..=k).map(|i| float(n - k + i) / float(i)).product()
    }

    /// The mean of what the bets become after `n` requests, by summing over all ways in which they may go.
    fn expectation(bets: &Bets, n: u64, up: f64, down: f64) -> f64 {
        let mut sum = 0.0;
        for ups in 0..=n {
            for downs in 0..=n - ups {
                let level = n - ups - downs;
                let ways = binomial(n, ups) * binomial(n - ups, downs);
                let power = |p: f64, k: u64| p.powi(i32::try_from(k).expect("small"));
                let chance =
                    ways * power(up, ups) * power(down, downs) * power(1.0 - up - down, level);
                if chance > 0.0 {
                    sum += chance * bets.log(&Counts::new(ups, downs, n)).exp();
                }
            }
        }
        sum
    }

    #[test]
    fn nobody_gets_richer_by_betting_against_what_is_right() {
        for (mean, noise) in [
            (0.0, 0.0),
            (0.0, 0.2),
            (0.01, 0.0),
            (0.01, 0.1),
            (0.3, 0.2),
            (-0.2, 0.0),
        ] {
            let (up, down) = (f64::max(mean, 0.0) + noise, f64::max(-mean, 0.0) + noise);
            for n in [0, 1, 2, 5, 17] {
                for bets in [Bets::against_at_most(mean), Bets::against_at_least(mean)] {
                    let expected = expectation(&bets, n, up, down);
                    assert!(
                        (expected - 1.0).abs() < 1e-9,
                        "{mean} {noise} {n}: {expected}"
                    );
                }
                let wrong = expectation(&Bets::against_at_most(mean + 0.05), n, up, down);
                assert!(wrong <= 1.0 + 1e-9, "{mean} {noise} {n}: {wrong}");
                let wrong = expectation(&Bets::against_at_least(mean - 0.05), n, up, down);
                assert!(wrong <= 1.0 + 1e-9, "{mean} {noise} {n}: {wrong}");
            }
        }
    }

    #[test]
    fn the_chance_of_ever_being_convinced_wrongly_is_at_most_alpha() {
        // The exact chance, by walking through every state of 400 fair discordant pairs that are looked at one by one.
        let bets = Bets::against_at_most(0.0);
        let mut ever = 0.0;
        let mut states = vec![1.0];
        for pairs in 1..=400u64 {
            let mut next = vec![0.0; states.len() + 1];
            for (ups, chance) in states.iter().enumerate() {
                next[ups] += chance / 2.0;
                next[ups + 1] += chance / 2.0;
            }
            for (ups, chance) in next.iter_mut().enumerate() {
                let counts = Counts::new(ups as u64, pairs - ups as u64, pairs);
                if bets.log(&counts) >= 20f64.ln() {
                    ever += std::mem::take(chance);
                }
            }
            states = next;
        }
        assert!(ever <= 0.05, "{ever}");
        assert!(ever > 0.01, "{ever}: it can be convinced at all");
    }

    #[test]
    fn pairs_in_which_nothing_happened_to_one_alone_do_not_matter() {
        let bets = Bets::against_at_most(0.0);
        let few = bets.log(&Counts::new(9, 2, 11));
        let many = bets.log(&Counts::new(9, 2, 1_000_000));
        assert!((few - many).abs() < 1e-12);
        assert!((Bets::against_at_most(0.1).log(&Counts::default())).abs() < 1e-12);
    }

    #[test]
    fn needs_is_the_least_number_that_is_enough() {
        let target = 20f64.ln();
        for least in [0.002, 0.01, 0.05] {
            let bets = Bets::against_at_least(least);
            let needs = bets.needs(&Counts::default(), target).expect("some time");
            assert!(bets.log(&Counts::new(0, 0, needs)) >= target);
            assert!(bets.log(&Counts::new(0, 0, needs - 1)) < target);
            // ln(2/alpha)/least: half of the stakes are on the bet that nothing happens.
            let known = 40f64.ln() / least;
            assert!(
                (float(needs) / known - 1.0).abs() < 0.05,
                "{least}: {needs}"
            );
            let half = Counts::new(0, 0, needs / 2);
            assert_eq!(bets.needs(&half, target), Some(needs - needs / 2));
            assert_eq!(bets.needs(&Counts::new(0, 0, needs), target), Some(0));
        }
        let bets = Bets::against_at_least(0.01);
        assert_eq!(bets.needs(&Counts::new(2, 0, 100), target), None);
        assert!(bets.needs(&Counts::new(1, 0, 1000), target).is_some());
    }

    #[test]
    fn what_is_told_apart_is_no_evidence_against_what_is_right() {
        // Every way in which some requests of either sort may go.
        for (noise, more) in [(0.0, 0.0), (0.0, 0.05), (0.2, 0.0), (0.3, 0.1), (0.5, 0.5)] {
            for (ours, theirs) in [(1, 8), (8, 1), (6, 6)] {
                let (mut at_most, mut at_least) = (0.0, 0.0);
                for ups in 0..=ours {
                    for others in 0..=theirs {
                        let power = |p: f64, k: u64| p.powi(i32::try_from(k).expect("small"));
                        let ways =
                            |n, k, p: f64| binomial(n, k) * power(p, k) * power(1.0 - p, n - k);
                        let chance = ways(ours, ups, noise + more) * ways(theirs, others, noise);
                        let apart = Apart {
                            v2: Counts::new(ups, 0, ours),
                            reference: Counts::new(others, 0, theirs),
                        };
                        at_most += chance * apart.against_at_most(more).exp();
                        at_least += chance * apart.against_at_least(more).exp();
                    }
                }
                let case = (noise, more, ours, theirs);
                assert!(at_most <= 1.0 + 1e-9, "{case:?}: {at_most}");
                assert!(at_least <= 1.0 + 1e-9, "{case:?}: {at_least}");
            }
        }
    }

    #[test]
    fn what_is_told_apart_grows_to_evidence() {
        let apart = |ups, ours, others, theirs| Apart {
            v2: Counts::new(ups, 0, ours),
            reference: Counts::new(others, 0, theirs),
        };
        let worse = apart(500, 1000, 4, 400);
        assert!(worse.against_at_most(0.01) > 20.0);
        assert!(worse.against_at_least(0.01) < 0.0);
        let alike = apart(10, 10_000, 4, 4_000);
        assert!(alike.against_at_most(0.01) < 0.0);
        assert!(alike.against_at_least(0.01) > 20.0);
        // With nothing to go by, nothing is said.
        let unknown = apart(1000, 1000, 0, 0);
        assert!(unknown.against_at_most(0.01) < 1.0);
        assert!(apart(0, 0, 0, 1000).against_at_least(0.01) < 1.0);
        let half = -std::f64::consts::LN_2;
        assert!((mean(f64::NEG_INFINITY, 3.0) - 3.0 - half).abs() < 1e-12);
        assert!((mean(2.0, 2.0) - 2.0).abs() < 1e-12);
    }

    #[test]
    fn the_interval_holds_the_mean_and_shrinks() {
        let mut width = 2.0;
        for n in [100, 1_000, 10_000, 100_000] {
            let counts = Counts::new(n / 10, n / 20, n);
            let (low, high) = interval(&counts, 0.05);
            assert!(
                low < counts.mean() && counts.mean() < high,
                "{n}: {low} {high}"
            );
            assert!(high - low < width, "{n}");
            width = high - low;
        }
        assert!(width < 0.01, "{width}");
        assert_eq!(interval(&Counts::default(), 0.05), (-1.0, 1.0));
        let (low, high) = interval(&Counts::new(0, 0, 368), 0.05);
        assert!(
            (-0.011..-0.009).contains(&low) && (0.009..0.011).contains(&high),
            "{low} {high}"
        );
    }

    #[test]
    fn in_a_family_more_is_asked_of_each() {
        let enough = |size: f64, most: u64| {
            let growth: f64 = (1..=most).map(|k| 1.0 / float(k)).sum();
            (size * growth / 0.05).ln()
        };
        assert!(family(&[], 0.05, Growth::to(10)).is_empty());
        assert_eq!(
            family(&[enough(1.0, 10) + 1e-9], 0.05, Growth::to(10)),
            [true]
        );
        assert_eq!(
            family(&[enough(1.0, 10) - 1e-9], 0.05, Growth::to(10)),
            [false]
        );
        let one = enough(3.0, 10) + 1e-9;
        assert_eq!(
            family(&[0.0, one, 0.0], 0.05, Growth::to(10)),
            [false, true, false]
        );
        let half = enough(1.5, 10) + 1e-9;
        assert_eq!(
            family(&[0.0, half, 0.0], 0.05, Growth::to(10)),
            [false, false, false]
        );
        assert_eq!(
            family(&[half, 0.0, half], 0.05, Growth::to(10)),
            [true, false, true]
        );
    }
}
