//! Results of a campaign that never was, for tests of what is made of results.
#![allow(dead_code)]

use campaign::meta::{Campaign, GoldenRun, Shard, Stratum};
use campaign::results::Table;
use campaign::row::{Outcome, Proof, Row};

/// SplitMix64: a seed gives the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

const START: u64 = 1_204_000_000;
const END: u64 = 1_214_000_000;
const PHASES: [(u64, &str); 4] =
    [(START, "load"), (START + 1_500_000, "encrypt"), (START + 7_000_000, "verify"), (START + 9_200_000, "print")];
/// First line, lines, KeyID.
const REGIONS: [(u64, u64, u16); 3] = [(0x21_e000, 64, 1), (0x3f_0000, 192, 1), (0x123_4000, 128, 2)];
/// Name, target, share of the injections in percent, faults of the space, and in percent masked, latent, detected, SDC, crash,
/// hang, not activated; the rest are errors of the tool.
const STRATA: [(&str, &str, u64, u64, [u64; 7]); 4] = [
    ("dram", "dram-flip", 50, 12_582_912_000, [46, 9, 0, 36, 6, 2, 1]),
    ("keys", "key-flip", 20, 7_680_000, [20, 2, 10, 25, 30, 10, 3]),
    ("write-backs", "write-back-drop", 20, 38_400, [55, 12, 0, 24, 3, 1, 4]),
    ("keyids", "keyid-stuck", 10, 2_400_000, [30, 5, 22, 12, 18, 4, 8]),
];

/// A campaign of so many injections, all done.
pub fn table(seed: u64, injections: u64) -> Table {
    let mut random = Random(seed);
    let (mut strata, mut rows) = (Vec::new(), Vec::new());
    let mut first = 0;
    for (index, (name, target, share, population, outcomes)) in STRATA.into_iter().enumerate() {
        let count = if index + 1 == STRATA.len() { injections - first } else { injections * share / 100 };
        let faults = format!("{target} over the secret and the stack");
        strata.push(Stratum { name: name.into(), faults, first, injections: count, population, stopped_after: None });
        rows.extend((first..first + count).map(|id| row(&mut random, id, name, target, population, outcomes)));
        first += count;
    }
    let campaign = Campaign {
        name: "synthetic".into(),
        identity: format!("{seed:032x}"),
        plan: "name = \"synthetic\"\n".into(),
        confidence_ppm: 950_000,
        golden: GoldenRun {
            start: START,
            end: END,
            state_hash: "0123456789abcdef0123456789abcdef".into(),
            phases: PHASES.iter().map(|(at, name)| (*at, (*name).to_owned())).collect(),
            console: "loading the secret\n64 blocks encrypted\nverified: all equal\n".into(),
        },
        strata,
    };
    Table { campaign, shard: Shard::WHOLE, rows }
}

/// The first stratum ended after so many.
pub fn stopped(mut table: Table, after: Option<u64>) -> Table {
    let Some(after) = after else { return table };
    let stratum = &mut table.campaign.strata[0];
    stratum.stopped_after = Some(after);
    let dropped = stratum.first + after..stratum.first + stratum.injections;
    table.rows.retain(|row| !dropped.contains(&row.id));
    table
}

fn row(random: &mut Random, id: u64, stratum: &str, target: &str, population: u64, outcomes: [u64; 7]) -> Row {
    let planned = START + random.below(END - START);
    let (base, lines, keyid) = REGIONS[if random.below(10) < 5 { 0 } else { 1 + random.below(2) as usize }];
    let (line, bit) = (base + 64 * random.below(lines), random.below(512) as u32);
    let phase = PHASES.iter().rev().find(|(at, _)| *at <= planned).map(|(_, name)| (*name).to_owned());
    let mut outcome = pick(random.below(100), outcomes);
    // The secret is not read any more once it was printed.
    if outcome == Outcome::Sdc && base == 0x21_e000 && planned > START + 9_200_000 {
        outcome = Outcome::Masked;
    }
    let addressed = target != "key-flip";
    let fault = match target {
        "dram-flip" => format!("dram-flip line={line:#x} bit={bit} at=icount:{planned}"),
        "key-flip" => format!("key-flip keyid={keyid} field=k1 bit={} at=icount:{planned}", bit % 128),
        "write-back-drop" => format!("write-back-drop line={line:#x} keyid={keyid} at=icount:{planned}"),
        _ => format!("keyid-stuck line={line:#x} bit=0 at=icount:{planned}"),
    };
    let activated = outcome != Outcome::NotActivated;
    let effect = activated.then(|| planned + random.below(3000));
    let shows = matches!(outcome, Outcome::Sdc | Outcome::Detected | Outcome::Crash);
    let latency = shows.then(|| 1u64 << random.below(22)).map(|top| top + random.below(top));
    let wrong = match outcome {
        Outcome::Latent | Outcome::Sdc => Some(1 + random.below(12)),
        Outcome::Masked => Some(0),
        _ => None,
    };
    Row {
        id,
        stratum: stratum.into(),
        fault,
        target: target.into(),
        element: random.below(population),
        phase,
        line: addressed.then_some(line),
        bit: Some(bit),
        keyid: Some(keyid),
        triggered: (activated || random.below(2) == 0).then_some(planned),
        effect,
        rip: activated.then(|| 0xffff_ffff_8100_0000 + random.below(1 << 20)),
        outcome,
        detail: match outcome {
            Outcome::Detected => "marker 7: MAC of the message is wrong".into(),
            Outcome::Crash => "console: Kernel panic - not syncing: Fatal exception".into(),
            Outcome::Hang => "100000000 instructions without a verdict".into(),
            Outcome::ToolError => "unimplemented instruction".into(),
            _ => String::new(),
        },
        proof: match outcome {
            Outcome::Masked if random.below(3) == 0 => Proof::Overwritten,
            Outcome::Masked if random.below(2) == 0 => Proof::Met,
            _ => Proof::Run,
        },
        end: if outcome == Outcome::Hang { END + 100_000_000 } else { END },
        latency,
        console_line: (outcome == Outcome::Sdc).then_some(3),
        console_text: (outcome == Outcome::Sdc).then(|| format!("block {} differs", random.below(64))),
        first_wrong_line: wrong.filter(|wrong| *wrong > 0).map(|_| line),
        wrong_lines: wrong,
        state_hash: format!("{:016x}{:016x}", random.next(), random.next()),
    }
}

fn pick(mut roll: u64, shares: [u64; 7]) -> Outcome {
    let order = [
        Outcome::Masked,
        Outcome::Latent,
        Outcome::Detected,
        Outcome::Sdc,
        Outcome::Crash,
        Outcome::Hang,
        Outcome::NotActivated,
    ];
    for (outcome, share) in order.into_iter().zip(shares) {
        if roll < share {
            return outcome;
        }
        roll -= share;
    }
    Outcome::ToolError
}
