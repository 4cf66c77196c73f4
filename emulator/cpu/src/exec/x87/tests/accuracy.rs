//! The transcendental functions against references computed with 600 bits (mpmath), rounded to nearest: the results must
//! be the correctly rounded ones, which is closer than SDM Vol. 1, section 8.3.10 asks for. References of the trigonometric
//! functions use the 66-bit pi in the reduction, like the processor. Then [`Wide`] against the host.

use super::{Random, rank};
use crate::exec::x87::f80;
use crate::exec::x87::host::{self, Arith, Outcome, Source};
use crate::exec::x87::spec::sw;
use crate::exec::x87::transcendental::{cosine, f2xm1, fpatan, fyl2x, fyl2xp1, sine, tangent};
use crate::exec::x87::wide::Wide;
use std::cmp::Ordering;

/// All masked, extended precision, round to nearest, down, up, to zero.
const CONTROL: [u16; 4] = [0x037F, 0x077F, 0x0B7F, 0x0F7F];

/// The result is the reference, and in the directed modes the value next to it or itself, on the right side.
fn check(name: &str, f: impl Fn(u16) -> Outcome, expected: u128, operands: &[u128]) {
    let [nearest, down, up, zero] = CONTROL.map(&f);
    let context = format!("{name} of {operands:020X?}");
    assert_eq!(nearest.value, expected, "{context}: {:020X} for {expected:020X}", nearest.value);
    let flags = [nearest, down, up, zero].map(|o| o.status & !sw::C1);
    assert_eq!(flags, [sw::PE; 4], "{context}");
    // The two neighbours of the exact result, whichever the nearest is.
    assert!(nearest.value == down.value || nearest.value == up.value, "{context}");
    let (less, more) = (Wide::from_f80(down.value), Wide::from_f80(up.value));
    assert_eq!(rank(up.value).abs_diff(rank(down.value)), 1, "{context}");
    let smaller = if less.cmp_magnitude(more) == Ordering::Less { down } else { up };
    assert_eq!(zero.value, smaller.value, "{context}");
    // C1: rounded up in magnitude.
    assert!(zero.status & sw::C1 == 0 && (nearest.value == zero.value) == (nearest.status & sw::C1 == 0), "{context}");
}

const SIN: &[(u128, u128)] = &[
    (0x1638_934F_069B_F2A7_4DE4, 0x1638_934F_069B_F2A7_4DE4),
    (0xBFCD_8945_9799_0C5C_7FD0, 0xBFCD_8945_9799_0C5C_7FD0),
    (0x3FDE_CA98_CC2E_5D9D_C9F8, 0x3FDE_CA98_CC2E_5D9D_C9F8),
    (0x3FF8_8B00_51AD_0999_50D8, 0x3FF8_8AFF_E465_3012_1B04),
    (0x3FFD_9ECE_0B92_11E2_0B8F, 0x3FFD_9C45_55AD_B0BE_9E2C),
    (0xBFFE_E9D6_4A57_0F21_DDB6, 0xBFFE_CAA6_6AEF_E8DC_D35C),
    (0xBFFF_9C93_182C_F28C_105D, 0xBFFE_F0B1_7010_9530_D44D),
    (0x3FFF_CAF3_057A_93BD_04CF, 0x3FFE_FFF8_E033_0DC0_864B),
    (0x4000_9C4C_68C8_F9EB_DACC, 0x3FFE_A4CE_D27C_DBFC_6CE5),
    (0x4008_910B_DF56_DBC4_96CB, 0x3FFE_D8AB_C745_9C34_D7B6),
    (0x4019_C535_31F6_24ED_E6A4, 0x3FFE_F6E7_0EB4_4D14_78DE),
    (0xC030_C7B6_82AC_4EF8_AA38, 0xBFFE_F98D_7515_E478_7535),
    (0xC03D_CA71_DFC8_1A61_DBE2, 0xBFFE_FA82_19EF_1302_5EAC),
    (0xC03D_8C78_9AE9_5F55_7203, 0xBFFE_DCF8_B928_57FF_90CC),
    (0x3FFF_C90F_DAA2_2168_C235, 0x3FFF_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C235, 0xBFBF_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C234, 0x3FC0_C000_0000_0000_0000),
    (0xBFFE_C90F_DAA2_2168_C235, 0xBFFE_B504_F333_F9DE_6485),
];

const COS: &[(u128, u128)] = &[
    (0x1638_934F_069B_F2A7_4DE4, 0x3FFF_8000_0000_0000_0000),
    (0xBFCD_8945_9799_0C5C_7FD0, 0x3FFF_8000_0000_0000_0000),
    (0x3FDE_CA98_CC2E_5D9D_C9F8, 0x3FFF_8000_0000_0000_0000),
    (0x3FF8_8B00_51AD_0999_50D8, 0x3FFE_FFFD_A436_27C8_96B5),
    (0x3FFD_9ECE_0B92_11E2_0B8F, 0x3FFE_F3C8_D178_C690_2E88),
    (0xBFFE_E9D6_4A57_0F21_DDB6, 0x3FFE_9C6C_F029_DBF7_AC6C),
    (0xBFFF_9C93_182C_F28C_105D, 0x3FFD_AE63_6AA4_4DB1_FB66),
    (0x3FFF_CAF3_057A_93BD_04CF, 0xBFF8_F193_2E85_47DD_3A79),
    (0x4000_9C4C_68C8_F9EB_DACC, 0xBFFE_C3E4_CBF8_8A70_14F4),
    (0x4008_910B_DF56_DBC4_96CB, 0xBFFE_8858_0D58_088A_46F9),
    (0x4019_C535_31F6_24ED_E6A4, 0x3FFD_8747_7FD2_2244_6B19),
    (0xC030_C7B6_82AC_4EF8_AA38, 0x3FFC_E45E_61D7_5D8C_60CB),
    (0xC03D_CA71_DFC8_1A61_DBE2, 0xBFFC_D2F7_05AC_BB71_6A64),
    (0xC03D_8C78_9AE9_5F55_7203, 0xBFFE_8141_FB23_9EF7_6359),
    (0x3FFF_C90F_DAA2_2168_C235, 0xBFBE_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C235, 0xBFFF_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C234, 0xBFFF_8000_0000_0000_0000),
    (0xBFFE_C90F_DAA2_2168_C235, 0x3FFE_B504_F333_F9DE_6484),
];

const TAN: &[(u128, u128)] = &[
    (0x1638_934F_069B_F2A7_4DE4, 0x1638_934F_069B_F2A7_4DE4),
    (0xBFCD_8945_9799_0C5C_7FD0, 0xBFCD_8945_9799_0C5C_7FD0),
    (0x3FDE_CA98_CC2E_5D9D_C9F8, 0x3FDE_CA98_CC2E_5D9D_C9F8),
    (0x3FF8_8B00_51AD_0999_50D8, 0x3FF8_8B01_2C3E_8C9C_4116),
    (0x3FFD_9ECE_0B92_11E2_0B8F, 0x3FFD_A419_EC24_792E_5B86),
    (0xBFFE_E9D6_4A57_0F21_DDB6, 0xBFFF_A5D3_1BA2_E691_FFB5),
    (0xBFFF_9C93_182C_F28C_105D, 0xC000_B0AA_D469_F810_A728),
    (0x3FFF_CAF3_057A_93BD_04CF, 0xC005_87A0_E364_4F68_D0E1),
    (0x4000_9C4C_68C8_F9EB_DACC, 0xBFFE_D760_45C3_FB40_F10C),
    (0x4008_910B_DF56_DBC4_96CB, 0xBFFF_CB69_455B_9C74_AD2F),
    (0x4019_C535_31F6_24ED_E6A4, 0x4000_E99D_ECDC_A31F_E858),
    (0xC030_C7B6_82AC_4EF8_AA38, 0xC001_8BDF_9E49_752F_B63E),
    (0xC03D_CA71_DFC8_1A61_DBE2, 0x4001_97FE_0922_62F6_3CA5),
    (0xC03D_8C78_9AE9_5F55_7203, 0x3FFF_DAD2_4879_584F_D724),
    (0x3FFF_C90F_DAA2_2168_C235, 0xC040_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C235, 0x3FBF_8000_0000_0000_0000),
    (0x4000_C90F_DAA2_2168_C234, 0xBFC0_C000_0000_0000_0000),
    (0xBFFE_C90F_DAA2_2168_C235, 0xBFFF_8000_0000_0000_0000),
];

const EXP2_MINUS_1: &[(u128, u128)] = &[
    (0x1848_C83D_3861_1012_F037, 0x1848_8ACB_91FD_8E94_A250),
    (0xBFC2_BF8A_8292_34B9_B5DF, 0xBFC2_84C4_21E4_18EA_4FE0),
    (0x3FC7_E37C_3B8C_6D76_B07E, 0x3FC7_9DAE_47CA_FCDF_ABC6),
    (0x3FF2_F633_53C3_95E7_61D1, 0x3FF2_AAAA_C4F3_2D88_3B70),
    (0xBFFB_9FCC_713B_4CBD_87AD, 0xBFFA_D7A4_D6C0_2DAE_5F49),
    (0x3FFD_E3D1_7510_B2F1_4C94, 0x3FFD_B8F8_E56A_86BF_D6C4),
    (0xBFFD_A66E_902A_930D_6EAF, 0xBFFC_CE93_E6CD_D47E_9E57),
    (0xBFFE_ABF7_02E6_E009_02C7, 0xBFFD_BE97_8B73_3687_D235),
    (0xBFFE_CDF2_5E7E_49B6_4A08, 0xBFFD_DAD8_496D_66C1_FB07),
    (0x3FFE_C187_03DE_1E39_8F10, 0x3FFE_B052_BC9F_76A3_64AB),
];

const LOG2: &[(u128, u128, u128)] = &[
    (0x3FF5_ABC8_7C17_C1D3_FCFF, 0x1124_8504_BE4B_6BF4_6C69, 0xC002_FB87_8A33_B063_2C2A),
    (0xBFEF_C76F_06BD_C3BA_EA9E, 0x3FF0_D8FF_7047_5712_4242, 0x3FF3_B17A_11F0_3E76_5932),
    (0xC001_BF93_0A25_9828_9FCD, 0x3FFE_EB84_107F_119A_72D1, 0x3FFE_B866_AB2F_ADF5_D0DD),
    (0x3FF0_A28D_5EC0_F1D6_9ED6, 0x3FFE_DD96_A107_0F88_080B, 0xBFEE_8769_D967_A82B_15B4),
    (0xBFFE_C9FA_2459_A5AA_3C81, 0x3FFF_DBBA_75A9_48DB_40AF, 0xBFFE_9D74_EEC5_CD6C_AA04),
    (0x4003_D596_698F_E315_1288, 0x3FFF_BB18_D4C9_F0CE_5835, 0x4002_E9F0_7475_0B2E_54C2),
    (0x4001_CE32_9C9C_2B05_37E6, 0x4001_9BEE_3B7D_0F17_A300, 0x4002_EB8E_6012_6DFB_F973),
    (0x3FFD_DE82_B0F3_211C_70CF, 0x4022_F55A_3BE9_6415_479C, 0x4002_F9E5_EE0B_4FF1_1893),
    (0x400A_954B_7D8D_14A0_F9E7, 0x7001_A390_3B8F_8CA8_1811, 0x4017_DFFC_377F_3DC9_CFF0),
    (0xBFFF_B71B_5558_D1BC_52D9, 0x3FFF_8000_0000_0000_0001, 0xBFC1_8415_67CF_65A5_B87B),
    (0xBFFF_B528_6FA6_B4D6_6A3A, 0x3FFE_FFFF_FFFF_FFFF_FFFF, 0x3FC0_82AD_86F7_8D0E_F93A),
    (0x4002_F12D_3B02_AEC6_F024, 0x3FFF_B504_F333_F9DE_6484, 0x4001_F12D_3B02_AEC6_F023),
    (0x4002_8A9F_3E15_26A2_C0BD, 0x3FFF_B504_F333_F9DE_6485, 0x4001_8A9F_3E15_26A2_C0BE),
];

const LOG2_PLUS_1: &[(u128, u128, u128)] = &[
    (0x3FF4_D44A_4644_3B61_8676, 0x9CE3_EA61_4617_7C26_847F, 0x9CDA_8C33_C4CC_7AC8_3D5D),
    (0x3FF6_A416_4E5E_4343_5CC5, 0x3FB3_C46D_7A00_6B40_13EF, 0x3FAB_B5A3_DCE2_5F9B_7E81),
    (0xC012_A8C8_447A_90FB_BD11, 0xBFC1_EDFA_5459_B0C4_312D, 0x3FD5_E25B_EF4B_8F74_A060),
    (0xC012_D68D_B96D_A7AB_E1C2, 0xBFEB_F323_E5C7_74E6_9A5D, 0x4000_92FE_4A87_7C6A_85AC),
    (0x400E_B2F3_F211_6472_F1A3, 0xBFFB_BDA2_8A2E_1A81_682C, 0xC00B_C8AF_FED3_CDD6_C1AC),
    (0x4004_9865_E4BE_0FEF_7928, 0x3FFC_94C6_59D2_70CC_EC31, 0x4001_EE9B_5E19_32C7_87C9),
    (0x4000_86BA_CC2E_99C9_4309, 0xBFFC_935C_A63F_9118_BB16, 0xBFFD_F19C_5536_CEF2_D915),
    (0xBFFF_AE8A_C517_F2EE_4E45, 0x3FFD_95F6_1998_0C43_36F7, 0xBFFE_815F_2601_6DD9_64D0),
    (0x3FFF_EFEA_1F9B_1200_339D, 0xBFFD_95F6_1998_0C43_36F7, 0xBFFE_EFEA_1F9B_1200_339C),
];

const ARCTAN: &[(u128, u128, u128)] = &[
    (0x3FFF_D134_5543_2607_679D, 0x3FFF_AE9C_E854_9A2E_F80F, 0x3FFE_E012_5DC8_7657_1FFA),
    (0x3FFF_ECA9_F713_1D87_CEC3, 0x3FFF_BDEE_4B45_7AFB_2C68, 0x3FFE_E4FE_C067_C4E8_FF8A),
    (0xBFFE_8D14_7BD9_24E4_E25A, 0x3FFF_A1E3_8DCD_BD87_A865, 0xBFFD_D264_B89F_D19F_B76A),
    (0x4004_C217_3FE1_2954_0A6E, 0xBFFF_F9DB_D286_F373_CA53, 0x3FFF_CE35_5E41_9C41_C774),
    (0xBFD2_D854_2272_2587_BE6B, 0x3FFF_C399_1712_C215_A82A, 0xBFD2_8D90_F2A7_9609_8929),
    (0xC03B_8BA6_3BD1_DD02_DE92, 0xBFFF_AEF0_04CB_84B5_A818, 0xBFFF_C90F_DAA2_2168_C23F),
    (0x3FFD_E2CE_DC8B_5B0E_E76F, 0xBFFF_9C8C_A121_A2ED_DBBD, 0x4000_B2D2_661A_2F79_267C),
    (0xBFFC_9EA4_4152_CE5B_2A92, 0x4000_E6D3_637E_BD68_5167, 0xBFFA_AFD5_D3E8_6BF0_9ECB),
    (0x3FDA_BF13_79B5_8483_F8B8, 0xC002_8393_712E_FD56_A926, 0x4000_C90F_DAA2_210B_D12D),
    (0x4000_A12C_A029_78E4_B98D, 0xC000_E77F_150F_727D_8349, 0x4000_A223_44C4_A57F_78D7),
    (0x4000_FCBC_E825_F47A_EBDD, 0x3FFF_8D13_7C44_3870_3800, 0x3FFF_A639_63E1_A362_FBFF),
    (0x2A70_AB3A_FB56_325B_55DD, 0xBFFF_FE1C_A392_9FC2_D0A1, 0x4000_C90F_DAA2_2168_C235),
    (0xBFFF_F460_A3A1_7ABE_C539, 0x35A7_D252_2F7F_CCB5_73D9, 0xBFFF_C90F_DAA2_2168_C235),
];

fn check_one(name: &str, f: fn(u16, u128) -> Outcome, vectors: &[(u128, u128)]) {
    for &(x, expected) in vectors {
        check(name, |fcw| f(fcw, x), expected, &[x]);
    }
}

fn check_two(name: &str, f: fn(u16, u128, u128) -> Outcome, vectors: &[(u128, u128, u128)]) {
    for &(y, x, expected) in vectors {
        check(name, |fcw| f(fcw, y, x), expected, &[y, x]);
    }
}

#[test]
fn transcendental_functions_are_correctly_rounded() {
    check_one("FSIN", sine, SIN);
    check_one("FCOS", cosine, COS);
    check_one("FPTAN", tangent, TAN);
    check_one("F2XM1", f2xm1, EXP2_MINUS_1);
    check_two("FYL2X", fyl2x, LOG2);
    check_two("FYL2XP1", fyl2xp1, LOG2_PLUS_1);
    check_two("FPATAN", fpatan, ARCTAN);
}

#[test]
fn arguments_from_2_to_the_63rd_on_are_out_of_range() {
    const TWO_63: u128 = 0x403E_8000_0000_0000_0000;
    for f in [sine, cosine, tangent] {
        assert_eq!(f(0x037F, TWO_63), Outcome::new(TWO_63, sw::C2));
        assert_eq!(f(0x037F, TWO_63 | f80::SIGN), Outcome::new(TWO_63 | f80::SIGN, sw::C2));
        assert_eq!(f(0x037F, TWO_63 - 1).status & sw::C2, 0);
    }
}

#[test]
fn powers_of_two_have_exact_logarithms() {
    for e in [-16382i32, -100, -1, 1, 2, 63, 16383] {
        let x = f80::pack(false, (e + f80::BIAS) as u16, f80::INTEGER);
        assert_eq!(fyl2x(0x0B7F, f80::ONE, x).value, f80::from_i64(i64::from(e)));
    }
    assert_eq!(fyl2x(0x037F, f80::ONE, f80::ONE), Outcome::new(f80::ZERO, 0));
}

#[test]
fn wide_products_and_quotients_round_like_the_hosts() {
    let mut random = Random::new(80);
    for _ in 0..40_000 {
        let (a, b) = (random.f80(), random.f80());
        let finite = |v| f80::classify(v) == f80::Class::Normal;
        if !finite(a) || !finite(b) {
            continue;
        }
        let masks = if random.chance(2) { 0x3F } else { random.next() as u16 & 0x3F };
        let fcw = 0x340 | (random.next() as u16 & 0xC00) | masks;
        let product = Wide::from_f80(a).mul(Wide::from_f80(b)).round(fcw);
        assert_eq!(product, host::arith(Arith::Mul, fcw, a, Source::Register(b)), "{a:020X} * {b:020X}, {fcw:04X}");
        let quotient = Wide::from_f80(a).div(Wide::from_f80(b)).round(fcw);
        assert_eq!(quotient, host::arith(Arith::Div, fcw, a, Source::Register(b)), "{a:020X} / {b:020X}, {fcw:04X}");
        let sum = Wide::from_f80(a).add(Wide::from_f80(b));
        if !sum.is_zero() {
            let host = host::arith(Arith::Add, fcw, a, Source::Register(b));
            assert_eq!(sum.round(fcw), host, "{a:020X} + {b:020X}, {fcw:04X}");
        }
    }
}

#[test]
fn wide_division_by_small_numbers_is_division() {
    let mut random = Random::new(81);
    for _ in 0..1000 {
        let a = Wide {
            exponent: 5,
            mantissa: u128::from(random.next()) << 64 | u128::from(random.next()) | 1 << 127,
            negative: false,
        };
        let n = random.below(2000) as u32 + 1;
        assert_eq!(a.div_small(n), a.div(Wide::integer(n as i32)));
    }
}
