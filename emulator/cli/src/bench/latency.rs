//! A model of time: what encryption costs a guest on a processor with given latencies.
//!
//! The processor is in order and has one fill outstanding. An instruction takes `cpi` cycles; a fill stops it until the
//! line is there; a write-back is posted, but takes its turn on the channel and in the engine. Transfers spread evenly
//! over the instructions of their slice. On a read the tweak, which needs the address only, is computed while DRAM works;
//! what decryption adds is the pipeline's latency for the data, and waiting where lines come faster than the engine
//! accepts them. It is an upper bound: a processor that runs ahead hides a part.

use super::guest::{Slice, Trace};
use super::limit::rounds;
use crypto::{Algorithm, LINE_BYTES};
use mem::KeyId;
use thiserror::Error;

/// What the model is made of. Cycles are the processor's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    pub clock_ghz: f64,
    /// Cycles per instruction while every access hits the cache.
    pub cpi: f64,
    /// From a fill's request to its whole line, without encryption.
    pub dram_cycles: f64,
    pub bandwidth_gbps: f64,
    /// AES-128 in the engine's pipeline.
    pub aes_latency: f64,
    /// Between two lines that the engine accepts.
    pub aes_interval: f64,
}

/// Parameters that no machine has. Names are those of the options.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum ParameterError {
    #[error("{option} {value}; accepted: {accepted}")]
    Range { option: &'static str, value: f64, accepted: &'static str },
    #[error(
        "--dram-cycles {dram_cycles}: a line takes {transfer:.1} cycles on the channel alone; accepted: at least that, or a larger --bandwidth"
    )]
    DramBelowTransfer { dram_cycles: f64, transfer: f64 },
    #[error(
        "--aes-interval {interval}: larger than --aes-latency {latency}, but an engine that is not pipelined accepts a line every {latency} cycles; accepted: up to that"
    )]
    IntervalAboveLatency { interval: f64, latency: f64 },
}

/// Which lines are encrypted, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// None: what the others are compared with.
    Plaintext,
    /// TME bypass: those of KeyIDs other than 0.
    KeyIds(Algorithm),
    /// All.
    All(Algorithm),
}

impl Policy {
    pub const ALL: [Self; 5] = [
        Self::Plaintext,
        Self::KeyIds(Algorithm::AesXts128),
        Self::KeyIds(Algorithm::AesXts256),
        Self::All(Algorithm::AesXts128),
        Self::All(Algorithm::AesXts256),
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "no encryption",
            Self::KeyIds(Algorithm::AesXts128) => "bypass, AES-XTS-128 for KeyIDs",
            Self::KeyIds(Algorithm::AesXts256) => "bypass, AES-XTS-256 for KeyIDs",
            Self::All(Algorithm::AesXts128) => "AES-XTS-128 for all",
            Self::All(Algorithm::AesXts256) => "AES-XTS-256 for all",
        }
    }

    fn cipher(self, keyid: KeyId) -> Option<Algorithm> {
        match self {
            Self::Plaintext => None,
            Self::KeyIds(algorithm) => (keyid.0 != 0).then_some(algorithm),
            Self::All(algorithm) => Some(algorithm),
        }
    }
}

/// What a policy costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub policy: Policy,
    pub cycles: f64,
    pub seconds: f64,
    /// More time than without encryption, in percent of that.
    pub slowdown_percent: f64,
    pub encrypted_lines: u64,
}

/// The model.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub parameters: Parameters,
    /// Cycles that a line is on the channel.
    transfer: f64,
}

impl Model {
    /// # Errors
    /// Parameters that no machine has.
    pub fn new(parameters: Parameters) -> Result<Model, ParameterError> {
        const CYCLES: &str = "a number of cycles above 0, at most 1000000";
        for (option, value, most, accepted) in [
            ("--clock", parameters.clock_ghz, 100.0, "a number of GHz above 0, at most 100"),
            ("--cpi", parameters.cpi, 1e6, CYCLES),
            ("--dram-cycles", parameters.dram_cycles, 1e6, CYCLES),
            ("--bandwidth", parameters.bandwidth_gbps, 1e5, "a number of GB/s above 0, at most 100000"),
            ("--aes-latency", parameters.aes_latency, 1e6, CYCLES),
            ("--aes-interval", parameters.aes_interval, 1e6, CYCLES),
        ] {
            // Not a number is not in the range either.
            if !(value > 0.0 && value <= most) {
                return Err(ParameterError::Range { option, value, accepted });
            }
        }
        let transfer = LINE_BYTES as f64 / parameters.bandwidth_gbps * parameters.clock_ghz;
        if transfer > parameters.dram_cycles {
            return Err(ParameterError::DramBelowTransfer { dram_cycles: parameters.dram_cycles, transfer });
        }
        if parameters.aes_interval > parameters.aes_latency {
            let (interval, latency) = (parameters.aes_interval, parameters.aes_latency);
            return Err(ParameterError::IntervalAboveLatency { interval, latency });
        }
        Ok(Model { parameters, transfer })
    }

    /// Every policy on a run.
    pub fn policies(&self, trace: &Trace) -> Vec<Cost> {
        let plain = self.cost(Policy::Plaintext, trace, f64::NAN).cycles;
        Policy::ALL.into_iter().map(|policy| self.cost(policy, trace, plain)).collect()
    }

    fn cost(&self, policy: Policy, trace: &Trace, plain: f64) -> Cost {
        let mut clock = Clock { model: self, policy, now: 0.0, channel_free: 0.0, engine_free: 0.0, encrypted: 0 };
        for slice in &trace.slices {
            clock.slice(slice);
        }
        Cost {
            policy,
            cycles: clock.now,
            seconds: clock.now / (self.parameters.clock_ghz * 1e9),
            // A run of no instructions is not slowed down.
            slowdown_percent: if plain > 0.0 { (clock.now / plain - 1.0) * 100.0 } else { 0.0 },
            encrypted_lines: clock.encrypted,
        }
    }
}

/// A run in progress. Times are cycles since its start.
struct Clock<'a> {
    model: &'a Model,
    policy: Policy,
    now: f64,
    channel_free: f64,
    engine_free: f64,
    encrypted: u64,
}

impl Clock<'_> {
    fn slice(&mut self, slice: &Slice) {
        let cycles = slice.instructions as f64 * self.model.parameters.cpi;
        let transfers: u64 = slice.transfers.iter().map(|(_, stats)| stats.fills + stats.write_backs).sum();
        let gap = cycles / transfers.max(1) as f64;
        if transfers == 0 {
            self.now += cycles;
        }
        for (keyid, stats) in &slice.transfers {
            let total = stats.fills + stats.write_backs;
            let mut written = 0_u64;
            for done in 1..=total {
                self.now += gap;
                // Write-backs have their even share among the fills, whose victims they mostly are.
                if u128::from(written) * u128::from(total) < u128::from(done) * u128::from(stats.write_backs) {
                    written += 1;
                    self.write_back(*keyid);
                } else {
                    self.fill(*keyid);
                }
            }
        }
    }

    /// Cycles in the engine's pipeline.
    fn latency(&self, algorithm: Algorithm) -> f64 {
        self.model.parameters.aes_latency * rounds(algorithm) / rounds(Algorithm::AesXts128)
    }

    /// Waits for the line.
    fn fill(&mut self, keyid: KeyId) {
        let requested = self.now;
        let start = requested.max(self.channel_free);
        self.channel_free = start + self.model.transfer;
        let arrived = start + self.model.parameters.dram_cycles;
        self.now = match self.policy.cipher(keyid) {
            None => arrived,
            Some(algorithm) => {
                self.encrypted += 1;
                let latency = self.latency(algorithm);
                // The tweak has been on its way since the request.
                let accepted = arrived.max(requested + latency).max(self.engine_free);
                self.engine_free = accepted + self.model.parameters.aes_interval;
                accepted + latency
            }
        };
    }

    /// Takes its turns and lets the processor go on.
    fn write_back(&mut self, keyid: KeyId) {
        self.channel_free = self.channel_free.max(self.now) + self.model.transfer;
        if self.policy.cipher(keyid).is_some() {
            self.encrypted += 1;
            self.engine_free = self.engine_free.max(self.now) + self.model.parameters.aes_interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mem::KeyStats;

    /// A line takes four cycles on the channel.
    const PARAMETERS: Parameters = Parameters {
        clock_ghz: 1.0,
        cpi: 2.0,
        dram_cycles: 100.0,
        bandwidth_gbps: 16.0,
        aes_latency: 10.0,
        aes_interval: 2.0,
    };

    fn trace(slices: &[(u64, u16, u64, u64)]) -> Trace {
        let mut trace = Trace::default();
        for &(instructions, keyid, fills, write_backs) in slices {
            trace.push(Slice { instructions, transfers: vec![(KeyId(keyid), KeyStats { fills, write_backs })] });
        }
        trace
    }

    fn cycles(trace: &Trace) -> Vec<f64> {
        Model::new(PARAMETERS).unwrap().policies(trace).iter().map(|cost| cost.cycles).collect()
    }

    #[test]
    fn a_fill_waits_for_dram_and_for_the_data_but_not_for_the_tweak() {
        // Ten instructions, then DRAM, then ten or fourteen cycles in the engine.
        assert_eq!(cycles(&trace(&[(10, 0, 1, 0)])), [120.0, 120.0, 120.0, 130.0, 134.0]);
        assert_eq!(cycles(&trace(&[(10, 5, 1, 0)])), [120.0, 130.0, 134.0, 130.0, 134.0]);
    }

    #[test]
    fn a_write_back_costs_nothing_but_the_channel() {
        assert_eq!(cycles(&trace(&[(10, 0, 0, 1)])), [20.0; 5]);
        // Two transfers, ten cycles of instructions before each; the channel is free again by then.
        assert_eq!(cycles(&trace(&[(10, 0, 1, 1)]))[0], 120.0);
        // No instructions between them: the fill waits for the channel.
        assert_eq!(cycles(&trace(&[(0, 0, 1, 1)]))[0], 104.0);
    }

    #[test]
    fn slices_without_transfers_are_instructions_only_and_an_empty_run_has_no_slowdown() {
        let mut trace = trace(&[(10, 0, 1, 0)]);
        trace.push(Slice { instructions: 90, transfers: vec![] });
        assert_eq!((trace.slices.len(), trace.instructions()), (1, 100));
        let costs = Model::new(PARAMETERS).unwrap().policies(&Trace::default());
        assert!(costs.iter().all(|cost| cost.cycles == 0.0 && cost.slowdown_percent == 0.0));
    }

    #[test]
    fn impossible_parameters_are_refused_by_option() {
        let refused = |parameters| Model::new(parameters).unwrap_err().to_string();
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(refused(Parameters { clock_ghz: value, ..PARAMETERS }).starts_with("--clock "));
            assert!(refused(Parameters { aes_interval: value, ..PARAMETERS }).starts_with("--aes-interval "));
        }
        assert!(refused(Parameters { dram_cycles: 3.0, ..PARAMETERS }).contains("4.0 cycles on the channel"));
        assert!(refused(Parameters { aes_interval: 11.0, ..PARAMETERS }).contains("larger than --aes-latency 10"));
    }
}
