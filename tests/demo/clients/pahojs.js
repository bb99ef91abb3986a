// paho's JavaScript client with a browser's WebSocket: `node pahojs.js host port`
import { createRequire } from "node:module";
import WebSocket from "ws";

globalThis.WebSocket = WebSocket;
const Paho = createRequire(import.meta.url)("paho-mqtt");
const [host, port] = process.argv.slice(2);
const client = new Paho.Client(host, Number(port), "pahojs");
const failed = (why) => {
  console.error(why.errorMessage ?? why);
  process.exit(1);
};
client.onConnectionLost = (why) => why.errorCode && failed(why);
client.onMessageArrived = (message) => {
  console.log(message.payloadString);
  client.disconnect();
};
client.connect({
  onFailure: failed,
  onSuccess: () =>
    client.subscribe("hello/pahojs", {
      qos: 1,
      onFailure: failed,
      onSuccess: () => client.send("hello/pahojs", "from paho JavaScript", 1),
    }),
});
