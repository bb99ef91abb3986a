// mqtt.js as it is: `node mqttjs.js mqtt://host:port [protocolVersion]`
import mqtt from "mqtt";

const [url, version] = process.argv.slice(2);
const client = mqtt.connect(url, version ? { protocolVersion: Number(version) } : {});
client.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
client.on("connect", async () => {
  await client.subscribeAsync("hello/#", { qos: 1 });
  await client.publishAsync("hello/empty", ""); // an empty WebSocket frame goes with it
  await client.publishAsync("hello/mqttjs", "from mqtt.js", { qos: 2 });
});
client.on("message", (topic, payload) => {
  if (topic === "hello/mqttjs") {
    console.log(payload.toString());
    client.end();
  }
});
