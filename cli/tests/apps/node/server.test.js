"use strict";

const assert = require("node:assert");
const test = require("node:test");
const { answer } = require("./server.js");

test("greets", () => assert.match(answer("/")[1], /hello/));
