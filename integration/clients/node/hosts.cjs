// What an entry in the hosts file would do, for this process alone: connections to
// the names in LEAD_NAMES go to LEAD_TO (host:port). Names in TLS and in Host stay.
// Loaded by NODE_OPTIONS=--require, so that the programs need not know of it.
"use strict";

const net = require("node:net");

const names = new Set((process.env.LEAD_NAMES ?? "").split(",").filter(Boolean));
const [host, port] = (process.env.LEAD_TO ?? "").split(":");
const connect = net.Socket.prototype.connect;

net.Socket.prototype.connect = function (...args) {
  // net.connect hands over an array of options and callback, others the options.
  const from = Array.isArray(args[0]) ? args[0] : args;
  if (names.has(from[0]?.host)) {
    from[0] = { ...from[0], host, port: Number(port), lookup: undefined };
  }
  return connect.apply(this, args);
};
