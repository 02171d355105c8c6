"""A middleware written with the package gor: it maps the tokens of version 1 to those of version 2."""

import sys

from gor.middleware import AsyncioGor

log = open(sys.argv[1], "a", buffering=1)
originals = {}
tokens = {}


def on_request(proxy, msg, **kwargs):
    log.write("1 %s %s\n" % (msg.id, proxy.http_path(msg.http)))
    token = proxy.http_path_param(msg.http, "token")
    if token and token[0] in tokens:
        msg.http = proxy.set_http_path_param(msg.http, "token", tokens[token[0]])
    msg.http = proxy.set_http_header(msg.http, "X-Python", "yes")
    return msg


def on_response(proxy, msg, **kwargs):
    log.write("2 %s %s\n" % (msg.id, proxy.http_status(msg.http)))
    originals[msg.id] = proxy.http_body(msg.http)


def on_replay(proxy, msg, **kwargs):
    log.write("3 %s %s\n" % (msg.id, proxy.http_status(msg.http)))
    if msg.id in originals:
        tokens[originals[msg.id]] = proxy.http_body(msg.http)


proxy = AsyncioGor()
proxy.on("request", on_request)
proxy.on("response", on_response)
proxy.on("replay", on_replay)
proxy.run()
