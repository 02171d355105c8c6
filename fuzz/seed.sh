#!/bin/sh
# Fills the corpus of a fuzz target with what the tests have. usage: seed.sh TARGET [FOLDER]
set -eu
cd "$(dirname "$0")/.."
corpus=${2:-fuzz/corpus/$1}
mkdir -p "$corpus"
case $1 in
read_capture)
    for capture in fixtures/conformance/*.gz; do
        gunzip -c "$capture" >"$corpus/$(basename "$capture" .gz)"
    done
    cp fixtures/*.pcap fixtures/*.pcapng "$corpus"
    # Captures of other projects, where they lie beside the repository.
    if [ -d ../shared/corpus/public ]; then
        find ../shared/corpus/public -maxdepth 1 -name '*.pcap*' -size -128 -exec cp {} "$corpus" \;
    fi
    ;;
read_gor)
    find fixtures tests -name '*.gor' -exec cp {} "$corpus" \;
    printf '1 a 1 0\nGET / HTTP/1.1\r\nHost: x\r\n\r\n\n🐵🙈🙉\n2 a 2 1\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx\n🐵🙈🙉\n' >"$corpus/pair"
    ;;
parse_http)
    # The first byte tells the side, the second the size of the pieces.
    for side in 0 1; do
        for message in 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' 'POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nT: 1\r\n\r\n' \
            'HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.0 204 \r\n\r\n' 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\n\nx'; do
            # shellcheck disable=SC2059
            printf "\\$side\\001$message" >"$corpus/$side-$(printf '%s' "$message" | cksum | cut -d' ' -f1)"
        done
    done
    ;;
reassemble)
    # Handshake, request, answer: who, flags, place (2), acknowledged (2), length, time, payload.
    printf '\000\002\000\000\000\000\000\001\001\022\000\000\001\000\000\001\000\020\001\000\001\000\000\001' >"$corpus/handshake"
    printf '\000\002\000\000\000\000\000\001\001\022\000\000\001\000\000\001\000\030\001\000\001\000\022\001GET / HTTP/1.1\r\n\r\n\001\030\001\000\023\000\030\001HTTP/1.1 204 No\r\nA: b\r\n\r\n' >"$corpus/exchange"
    ;;
decode_frame)
    for capture in fixtures/conformance/link_*.pcap.gz fixtures/conformance/tun_*.pcap.gz fixtures/conformance/ip*.pcap.gz; do
        gunzip -c "$capture" | python3 fuzz/frames.py >"$corpus/$(basename "$capture" .pcap.gz)"
    done
    ;;
read_har)
    cp fixtures/record/*.har "$corpus"
    ;;
read_jsonl)
    cp fixtures/record/*.jsonl "$corpus"
    split -l 1 fixtures/record/exchanges.jsonl "$corpus/line-"
    ;;
parse_filter)
    # A rule, and behind its line a request.
    number=0
    while IFS= read -r rule; do
        number=$((number + 1))
        printf '%s\nPOST /api/v1?a=b HTTP/1.1\r\nHost: shop.example\r\nCookie: a=b; c=d\r\nAuthorization: Basic YTpi\r\nContent-Length: 3\r\n\r\nabc' \
            "$rule" >"$corpus/rule-$number"
    done <fuzz/seeds/filters
    ;;
read_middleware)
    printf '1 d7921c0c7f000001388709f8 1795381446370345171 0\nGET / HTTP/1.1\r\nHost: x\r\n\r\n' | od -An -v -tx1 | tr -d ' \n' >"$corpus/request"
    printf '2 a 2 1\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx' | od -An -v -tx1 | tr -d ' \n' >"$corpus/answer"
    { cat "$corpus/request"; echo; cat "$corpus/answer"; echo; } >"$corpus/both"
    printf '3 a 1\n' | od -An -v -tx1 | tr -d ' \n' | tr a-f A-F >"$corpus/replayed"
    ;;
inject_manifest)
    cp k8s/*.yaml "$corpus"
    cp fuzz/seeds/*.yaml "$corpus"
    ;;
*)
    echo "seed.sh: no target '$1'" >&2
    exit 2
    ;;
esac
