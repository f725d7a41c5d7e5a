// Derives keys as wallets do, with @scure/bip39 and @scure/bip32.
//
// Reads one JSON object per line from standard input and answers each with one:
//
//     {"mnemonic": words, "passphrase": text (optional), "path": "m/44'/60'/0'/0/5"}
//     {"seed": hex, "public_key": hex}

"use strict";

const { createInterface } = require("node:readline");
const { HDKey } = require("@scure/bip32");
const { mnemonicToSeedSync, validateMnemonic } = require("@scure/bip39");
const { wordlist } = require("@scure/bip39/wordlists/english");

createInterface({ input: process.stdin }).on("line", (line) => {
  const { mnemonic, passphrase, path } = JSON.parse(line);
  if (!validateMnemonic(mnemonic, wordlist)) throw new Error("not a mnemonic");
  const seed = mnemonicToSeedSync(mnemonic, passphrase ?? "");
  const publicKey = HDKey.fromMasterSeed(seed).derive(path).publicKey;
  const hex = (bytes) => Buffer.from(bytes).toString("hex");
  console.log(JSON.stringify({ seed: hex(seed), public_key: hex(publicKey) }));
});
