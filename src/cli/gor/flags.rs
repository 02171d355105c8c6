//! Every flag of GoReplay 2.0, and what becomes of it here. `docs/goreplay.md` is held to this table by a test.

/// What a flag's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `true` without a value.
    Bool,
    /// Anything; of several, the last counts.
    Text,
    /// Anything; several add up.
    List,
    /// A whole number.
    Integer,
    /// A length of time.
    Duration,
    /// A number of bytes.
    Size,
}

/// What becomes of a flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// It means what it means in GoReplay; or what its documentation promises.
    Same(&'static str),
    /// It is taken, and there is nothing to do for it; a line in the log says why.
    Needless(&'static str),
    /// It is refused: why, and what to use instead.
    Refused(&'static str, &'static str),
}

/// A flag of GoReplay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What becomes of it.
    pub usage: Use,
}

const fn same(name: &'static str, kind: Kind, meaning: &'static str) -> Flag {
    Flag {
        name,
        kind,
        usage: Use::Same(meaning),
    }
}

const fn needless(name: &'static str, kind: Kind, why: &'static str) -> Flag {
    Flag {
        name,
        kind,
        usage: Use::Needless(why),
    }
}

const fn refused(name: &'static str, kind: Kind, why: &'static str, instead: &'static str) -> Flag {
    Flag {
        name,
        kind,
        usage: Use::Refused(why, instead),
    }
}

/// The flag of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

use Kind::{Bool, Duration, Integer, List, Size, Text};

const PROFILE: &str = "it makes Go's profiles, and this is no Go program";
const PERF: &str = "perf record";
const KAFKA: &str = "Kafka is not spoken";
const KAFKA_IN: &str = "a consumer of your own that writes .gor, and --input-file";
const KAFKA_OUT: &str = "--output-file, or --output-tcp to a program of your own";
const WS: &str = "WebSocket is not spoken";
const BINARY: &str = "binary protocols are not replayed, only HTTP/1";
const PCAP: &str = "shadowtap record --out traffic.pcap";

/// All of them, in the order of GoReplay's groups.
pub const FLAGS: &[Flag] = &[
    // General.
    same(
        "verbose",
        Integer,
        "logs more: 1 and 2 debug, 3 and more trace",
    ),
    same(
        "stats",
        Bool,
        "prints the queues of outputs with --output-http-stats or --output-tcp-stats now and then",
    ),
    same(
        "exit-after",
        Duration,
        "stops after so long, with exit code 0",
    ),
    same(
        "split-output",
        Bool,
        "deals messages out to the outputs in turn instead of giving each to all",
    ),
    same(
        "recognize-tcp-sessions",
        Bool,
        "with --split-output, all messages of a captured connection go to one output",
    ),
    same(
        "prettify-http",
        Bool,
        "takes chunk framing and gzip off bodies",
    ),
    same(
        "copy-buffer-size",
        Size,
        "messages that are longer are counted and not sent, never cut",
    ),
    same("middleware", Text, "passes messages through a program"),
    refused(
        "http-pprof",
        Text,
        PROFILE,
        "shadowtap mirror --admin ADDRESS, for metrics",
    ),
    refused("cpuprofile", Text, PROFILE, PERF),
    refused("memprofile", Text, PROFILE, PERF),
    // Capture.
    same(
        "input-raw",
        List,
        "captures live: [HOST]:PORTS, an interface, or a .pcap file",
    ),
    same(
        "input-raw-engine",
        Text,
        "libpcap, raw_socket and af_packet are the same capture; pcap_file reads a file",
    ),
    same("input-raw-protocol", Text, "http"),
    same("input-raw-track-response", Bool, "captures the answers too"),
    same(
        "input-raw-bpf-filter",
        Text,
        "narrows what is captured, beside the filter for the ports",
    ),
    same(
        "input-raw-realip-header",
        Text,
        "sets this field to the client's address",
    ),
    same("input-raw-buffer-size", Size, "the kernel's buffer"),
    same(
        "input-raw-ignore-interface",
        List,
        "captures on all interfaces but these",
    ),
    same(
        "input-raw-vxlan-port",
        Integer,
        "the UDP port of VXLAN, which is looked into on every interface",
    ),
    needless(
        "input-raw-expire",
        Duration,
        "a message with a hole is given up when the hole is proved, not by the clock",
    ),
    needless(
        "input-raw-override-snaplen",
        Bool,
        "whole packets are always captured",
    ),
    needless(
        "input-raw-buffer-timeout",
        Duration,
        "packets are handed over within 5 ms",
    ),
    needless(
        "input-raw-stats",
        Bool,
        "everything is counted, and told at the end",
    ),
    needless(
        "input-raw-vlan",
        Bool,
        "VLAN tags are read wherever they are",
    ),
    refused(
        "input-raw-allow-incomplete",
        Bool,
        "a request that was not seen whole is never sent",
        "shadowtap record --out traffic.jsonl, which marks them",
    ),
    refused(
        "input-raw-timestamp-type",
        Text,
        "the kernel's time stamps are used",
        "no flag: they are what an original's pace needs",
    ),
    refused(
        "input-raw-promisc",
        Bool,
        "a sidecar sees the traffic of its own interfaces",
        "capture on the machine itself, or replay a .pcap file",
    ),
    refused(
        "input-raw-monitor",
        Bool,
        "radio frames are not captured live",
        "--input-raw FILE.pcap:PORT with a capture of another tool",
    ),
    refused(
        "input-raw-vlan-vid",
        List,
        "the VLAN is not told apart by a flag of its own",
        "--input-raw-bpf-filter 'vlan 42'",
    ),
    refused(
        "input-raw-vxlan-vni",
        List,
        "the network is not told apart by a flag of its own",
        "--input-raw-bpf-filter",
    ),
    // Files.
    same(
        "input-file",
        List,
        "reads .gor files: a name or a pattern, with |200% for the speed",
    ),
    same("input-file-loop", Bool, "begins again at the end"),
    same(
        "input-file-read-depth",
        Integer,
        "so many records of each file are put in order of time",
    ),
    same(
        "input-file-dry-run",
        Bool,
        "tells what is in the files, and sends nothing",
    ),
    same("input-file-max-wait", Duration, "pauses are cut to this"),
    // Network.
    same(
        "input-tcp",
        List,
        "receives from the --output-tcp of another instance",
    ),
    same("input-http", List, "receives HTTP requests"),
    same("input-tcp-secure", Bool, "with TLS"),
    same(
        "input-tcp-certificate",
        Text,
        "its certificate, in a PEM file",
    ),
    same(
        "input-tcp-certificate-key",
        Text,
        "the certificate's key, in a PEM file",
    ),
    refused(
        "input-dummy",
        List,
        "made-up requests are for trying GoReplay out",
        "shadowtap demo",
    ),
    refused("input-kafka-host", Text, KAFKA, KAFKA_IN),
    refused("input-kafka-topic", Text, KAFKA, KAFKA_IN),
    refused("input-kafka-json-format", Bool, KAFKA, KAFKA_IN),
    refused("input-kafka-use-sasl", Bool, KAFKA, KAFKA_IN),
    refused("input-kafka-mechanism", Text, KAFKA, KAFKA_IN),
    refused("input-kafka-username", Text, KAFKA, KAFKA_IN),
    refused("input-kafka-password", Text, KAFKA, KAFKA_IN),
    refused("input-kafka-offset", Text, KAFKA, KAFKA_IN),
    // To a target.
    same(
        "output-http",
        List,
        "sends requests: http://HOST[:PORT][/BASE-PATH], or https",
    ),
    same(
        "output-http-workers",
        Integer,
        "so many connections at most; 0 is 256",
    ),
    same(
        "output-http-queue-len",
        Integer,
        "so many requests may wait",
    ),
    same(
        "output-http-worker-timeout",
        Duration,
        "a connection that is idle for so long is closed",
    ),
    same(
        "output-http-timeout",
        Duration,
        "how long an answer may take in all",
    ),
    same(
        "output-http-redirects",
        Integer,
        "how many redirects of a request are followed",
    ),
    same("output-http-skip-verify", Bool, "takes any certificate"),
    same(
        "output-http-track-response",
        Bool,
        "the target's answers go to the middleware and the other outputs",
    ),
    same("output-http-stats", Bool, "with --stats, prints the queue"),
    same("output-http-stats-ms", Integer, "how often"),
    same(
        "output-http-response-buffer",
        Size,
        "so much of an answer's body is kept",
    ),
    needless(
        "output-http-workers-min",
        Integer,
        "a connection is opened when there is something to send",
    ),
    refused(
        "output-http-elasticsearch",
        Text,
        "Elasticsearch is not written to",
        "--output-file, and shadowtap inspect --json for a loader of your own",
    ),
    same("http-original-host", Bool, "keeps the Host field"),
    // To files and streams.
    same(
        "output-file",
        List,
        "writes .gor files, gzipped when the name ends in .gz",
    ),
    same(
        "output-file-append",
        Bool,
        "appends to one file; what is in it stays",
    ),
    same(
        "output-file-flush-interval",
        Duration,
        "how often is written out",
    ),
    same("output-file-size-limit", Size, "so large is a chunk"),
    same(
        "output-file-queue-limit",
        Integer,
        "so many records has a chunk",
    ),
    same(
        "output-file-max-size-limit",
        Size,
        "the run ends when all chunks together are so large",
    ),
    refused(
        "output-file-buffer",
        Text,
        "it is for S3, which is not written to",
        "--output-file, and a copy to S3",
    ),
    same("output-stdout", Bool, "writes records to standard output"),
    same("output-null", Bool, "throws messages away"),
    same(
        "output-tcp",
        List,
        "sends to the --input-tcp of another instance",
    ),
    same("output-tcp-workers", Integer, "over so many connections"),
    same(
        "output-tcp-sticky",
        Bool,
        "all messages of an exchange go over one connection",
    ),
    same("output-tcp-stats", Bool, "with --stats, prints the queue"),
    same("output-tcp-secure", Bool, "with TLS"),
    same("output-tcp-skip-verify", Bool, "takes any certificate"),
    refused("output-tcp-response-buffer", Size, BINARY, PCAP),
    refused("output-ws", List, WS, "--output-tcp"),
    refused("output-ws-workers", Integer, WS, "--output-tcp"),
    refused("output-ws-sticky", Bool, WS, "--output-tcp"),
    refused("output-ws-skip-verify", Bool, WS, "--output-tcp"),
    refused("output-ws-stats", Bool, WS, "--output-tcp"),
    refused("output-binary", List, BINARY, PCAP),
    refused("output-binary-workers", Integer, BINARY, PCAP),
    refused("output-binary-timeout", Duration, BINARY, PCAP),
    refused("output-binary-track-response", Bool, BINARY, PCAP),
    refused("output-binary-debug", Bool, BINARY, PCAP),
    refused("output-kafka-host", Text, KAFKA, KAFKA_OUT),
    refused("output-kafka-topic", Text, KAFKA, KAFKA_OUT),
    refused("output-kafka-json-format", Bool, KAFKA, KAFKA_OUT),
    refused("output-kafka-use-sasl", Bool, KAFKA, KAFKA_OUT),
    refused("output-kafka-mechanism", Text, KAFKA, KAFKA_OUT),
    refused("output-kafka-username", Text, KAFKA, KAFKA_OUT),
    refused("output-kafka-password", Text, KAFKA, KAFKA_OUT),
    refused("kafka-tls-ca-cert", Text, KAFKA, KAFKA_OUT),
    refused("kafka-tls-client-cert", Text, KAFKA, KAFKA_OUT),
    refused("kafka-tls-client-key", Text, KAFKA, KAFKA_OUT),
    // Filters and rewrites.
    same(
        "http-allow-method",
        List,
        "takes requests with one of these methods",
    ),
    same(
        "http-allow-url",
        List,
        "takes requests whose path and query match one of these",
    ),
    same(
        "http-disallow-url",
        List,
        "leaves out those that match one of these",
    ),
    same(
        "http-allow-header",
        List,
        "takes requests whose fields match all of these",
    ),
    same(
        "http-disallow-header",
        List,
        "leaves out those of which one matches",
    ),
    same("http-basic-auth-filter", List, "leaves out other users"),
    same(
        "http-header-limiter",
        List,
        "a share, by the hash of a field",
    ),
    same(
        "http-param-limiter",
        List,
        "a share, by the hash of a query parameter",
    ),
    same("http-set-header", List, "sets a field"),
    same("http-set-param", List, "sets a query parameter"),
    same("http-rewrite-url", List, "replaces in path and query"),
    same("http-rewrite-header", List, "replaces in a field"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_flag_is_there_once_and_says_something() {
        let mut names = HashSet::new();
        for flag in FLAGS {
            assert!(names.insert(flag.name), "{}", flag.name);
            let words = match flag.usage {
                Use::Same(words) | Use::Needless(words) => words.to_owned(),
                Use::Refused(why, instead) => {
                    assert!(!instead.is_empty());
                    why.to_owned()
                }
            };
            assert!(words.len() > 3, "{}", flag.name);
            assert_eq!(find(flag.name), Some(flag));
        }
        assert!(FLAGS.len() >= 111, "{}", FLAGS.len());
    }
}
