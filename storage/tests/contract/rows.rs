//! Makes a test of each row and each store.

/// Rows `everywhere` are asked of all stores, those `on_servers` of those behind links.
macro_rules! rows {
    (everywhere: $($row:ident),*; on_servers: $($server_row:ident),* $(,)?) => {
        mod memory {
            $(#[test] fn $row() { super::$row($crate::bench::Kind::Memory); })*
        }
        mod redis {
            $(#[test] fn $row() { super::$row($crate::bench::Kind::Redis); })*
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::Redis); })*
        }
        mod redis_cluster {
            $(#[test] fn $row() { super::$row($crate::bench::Kind::RedisCluster); })*
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::RedisCluster); })*
        }
        mod postgres {
            $(#[test] fn $row() { super::$row($crate::bench::Kind::Postgres); })*
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::Postgres); })*
        }
    };
    (on_servers: $($server_row:ident),* $(,)?) => {
        mod redis {
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::Redis); })*
        }
        mod redis_cluster {
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::RedisCluster); })*
        }
        mod postgres {
            $(#[test] fn $server_row() { super::$server_row($crate::bench::Kind::Postgres); })*
        }
    };
}
