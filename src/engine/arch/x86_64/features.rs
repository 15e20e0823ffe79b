//! The instruction sets that there is code for: the one place that names their features.

#![forbid(unsafe_code)]

/// Defines an instruction set: a macro that compiles functions for it, and a function that asks the processor for it. Both are
/// made from one list of features, so that they cannot differ.
macro_rules! instruction_set {
    ($dollar:tt $for_it:ident, $is_there:ident: $($feature:tt)+) => {
        /// Compiles functions for the features of the set.
        macro_rules! $for_it {
            ($dollar($dollar item:item)*) => {
                $dollar(
                    #[inline]
                    $(#[target_feature(enable = $feature)])+
                    $dollar item
                )*
            };
        }
        pub(super) use $for_it;

        /// Whether the processor has every feature of the set.
        pub(super) fn $is_there() -> bool {
            true $(&& is_x86_feature_detected!($feature))+
        }
    };
}

// Intel since Haswell, AMD since Excavator.
instruction_set!($ for_avx2, is_avx2_there: "avx2" "bmi1" "bmi2" "lzcnt" "popcnt");
// Intel since Ice Lake, AMD since Zen 4.
instruction_set!(
    $ for_avx512, is_avx512_there:
    "avx512f" "avx512bw" "avx512vl" "avx512vbmi" "avx512vbmi2" "avx512vpopcntdq" "bmi1" "bmi2" "popcnt"
);
