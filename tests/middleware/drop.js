// A middleware written with the package goreplay_middleware: it drops /drop, and changes the path and body of the rest.
const fs = require('fs');
const gor = require('goreplay_middleware');
const log = process.argv[2];

gor.init();
gor.on('request', function (req) {
  const path = gor.httpPath(req.http);
  fs.appendFileSync(log, `1 ${req.ID} ${path}\n`);
  if (path.startsWith('/drop')) return;
  req.http = gor.setHttpPath(req.http, '/node' + path);
  if (gor.httpBody(req.http).length) {
    req.http = gor.setHttpBody(req.http, Buffer.from('changed by node'));
  }
  gor.on('response', req.ID, function (resp) {
    fs.appendFileSync(log, `2 ${resp.ID} ${gor.httpStatus(resp.http)}\n`);
    return resp;
  });
  gor.on('replay', req.ID, function (repl) {
    fs.appendFileSync(log, `3 ${repl.ID} ${gor.httpStatus(repl.http)}\n`);
    return repl;
  });
  return req;
});
