pub const STATEMENTS: &[crate::statement::Statement] = &[];
