// A PLC that speaks OPC UA with node-opcua: one JSON command a line on stdin, one JSON answer a line on stdout.
"use strict";
const fs = require("fs");
const readline = require("readline");
const opcua = require("node-opcua");
const { AttributeIds, DataType, VariantArrayType, StatusCodes } = opcua;

const SPEC = 2; // namespace of OPC 40100-1 on our server
const EVENTS = { 1013: "JobStarted", 1018: "StateChanged", 1022: "RecipePrepared", 1023: "Ready", 1024: "ResultReady", 1025: "AcquisitionDone" };
const FIELDS = ["EventType", `${SPEC}:JobId`, `${SPEC}:ResultId`, `${SPEC}:PartId`, `${SPEC}:MeasId`, `${SPEC}:ResultState`,
    `${SPEC}:ResultContent`, "ToState", `${SPEC}:InternalRecipeId`, `${SPEC}:CreationTime`,
    `${SPEC}:InternalId`];
const MACHINE = `/${SPEC}:VisionStateMachine`;
const AUTOMATIC = `${MACHINE}/${SPEC}:AutomaticModeStateMachine`;
const OBJECTS = { machine: MACHINE, automatic: AUTOMATIC, recipes: `/${SPEC}:RecipeManagement`, results: `/${SPEC}:ResultManagement` };
const TYPES = { meas: 3015, part: 3004, recipe: 3002, internal: 3013, product: 3003, result: 3021, job: 3016 };

let client, session, subscription;
const ids = {};
const seen = [];
let wake = () => {};

const say = (answer) => process.stdout.write(`> ${JSON.stringify(answer)}\n`); // node-opcua writes its log to stdout as well
const idOf = (value) => (value && value.id !== undefined ? value.id : null);

function plain(value) {
    if (value === null || value === undefined) return null;
    if (value instanceof opcua.Variant) return plain(value.value);
    if (value instanceof Date) return value.toISOString();
    if (ArrayBuffer.isView(value)) return Array.from(value);
    if (Array.isArray(value)) return value.map(plain);
    if (typeof value === "object" && value.resultId !== undefined) {
        return { resultId: idOf(value.resultId), jobId: idOf(value.jobId), partId: idOf(value.partId), measId: idOf(value.measId),
            state: value.resultState, content: plain(value.resultContent), recipe: idOf(value.internalRecipeId) };
    }
    if (typeof value === "object" && value.id !== undefined) return value.id;
    if (typeof value === "object" && value.text !== undefined) return value.text;
    return value;
}

async function node(path) {
    if (!ids[path]) {
        const found = await session.translateBrowsePath(opcua.makeBrowsePath("RootFolder", `/Objects/3:Lineside${path}`));
        if (!found.targets || !found.targets.length) throw new Error(`no node ${path}`);
        ids[path] = found.targets[0].targetId;
    }
    return ids[path];
}

async function argument(item) {
    if (item === null) return { dataType: DataType.Null };
    if (item.list) return { dataType: DataType.Variant, arrayType: VariantArrayType.Array,
        value: item.list.map((text) => ({ dataType: DataType.String, value: text })) };
    if (item.int !== undefined) return { dataType: DataType.Int32, value: item.int };
    if (item.uint !== undefined) return { dataType: DataType.UInt32, value: item.uint };
    if (item.text !== undefined) return { dataType: DataType.String, value: item.text };
    const [kind, text] = Object.entries(item)[0];
    const made = await session.constructExtensionObject(opcua.coerceNodeId(`ns=${SPEC};i=${TYPES[kind]}`), { id: text });
    return { dataType: DataType.ExtensionObject, value: made };
}

async function call(object, method, items) {
    const objectId = await node(OBJECTS[object]);
    const methodId = await node(`${OBJECTS[object]}/${SPEC}:${method}`);
    const inputArguments = [];
    for (const item of items) inputArguments.push(await argument(item));
    const done = await session.call({ objectId, methodId, inputArguments });
    return { status: done.statusCode.name, out: (done.outputArguments || []).map(plain) };
}

async function listen(command) {
    subscription = await session.createSubscription2({ requestedPublishingInterval: command.interval || 10,
        requestedLifetimeCount: 6000, requestedMaxKeepAliveCount: 100, maxNotificationsPerPublish: 1000, publishingEnabled: true, priority: 10 });
    const nodeId = command.server ? opcua.resolveNodeId("Server") : await node("");
    const item = await subscription.monitor({ nodeId, attributeId: AttributeIds.EventNotifier },
        { samplingInterval: 0, queueSize: 5000, discardOldest: true, filter: opcua.constructEventFilter(FIELDS) }, opcua.TimestampsToReturn.Both);
    item.on("changed", (fields) => {
        const [, job, result, part, meas, state, content, to, judged, created, prepared] = fields.map(plain);
        const name = EVENTS[fields[0].value.value];
        if (name) seen.push({ name, job, result, part, meas, state, content, to, recipe: judged || prepared, created });
        wake();
    });
}

async function heard(fits, limit_ms) {
    const end = Date.now() + limit_ms;
    for (;;) {
        const index = seen.findIndex(fits);
        if (index >= 0) return seen[index];
        const left = end - Date.now();
        if (left <= 0) return null;
        await new Promise((resolve) => { const timer = setTimeout(resolve, left); wake = () => { clearTimeout(timer); resolve(); }; });
    }
}

async function onePart(prefix, number) {
    const start = process.hrtime.bigint();
    const items = [{ meas: `${prefix}-${number}` }, { part: `SN-${number}` }, { recipe: "board-a" }, null, { list: ["lot=L9"] }];
    let done;
    for (let tries = 0; tries < 200; tries += 1) {
        done = await call("automatic", "StartSingleJob", items);
        if (done.out[1] !== 1 && done.out[1] !== 2) break; // busy or not ready: the station is about to be
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (done.out[1] !== 0) return { part: number, error: done.out[1], status: done.status };
    const job = done.out[0];
    const result = await heard((one) => one.name === "ResultReady" && one.job === job, 50000);
    const ms = Number(process.hrtime.bigint() - start) / 1e6;
    const ready = await heard((one) => one.name === "Ready" && one.job === job, 50000);
    return { part: number, ms, job, ready: ready !== null, results: seen.filter((one) => one.name === "ResultReady" && one.job === job).length, ...result };
}

const acts = {
    async connect(command) {
        const store = new opcua.OPCUACertificateManager({ rootFolder: command.store, automaticallyAcceptUnknownCertificate: true });
        await store.initialize();
        const security = command.certificate ? { securityMode: opcua.MessageSecurityMode.SignAndEncrypt,
            securityPolicy: opcua.SecurityPolicy.Basic256Sha256, certificateFile: command.certificate, privateKeyFile: command.key } : {};
        client = opcua.OPCUAClient.create({ endpointMustExist: false, applicationUri: command.uri, clientCertificateManager: store,
            connectionStrategy: { maxRetry: 0, initialDelay: 100, maxDelay: 200 }, keepSessionAlive: true, requestedSessionTimeout: 60000, ...security });
        await client.connect(command.url);
        const user = command.user ? { type: opcua.UserTokenType.UserName, userName: command.user, password: command.password } : undefined;
        session = await client.createSession(user);
        return {};
    },
    async listen(command) { await listen(command); return {}; },
    async call(command) { return call(command.object, command.method, command.arguments || []); },
    async read(command) {
        const found = await session.read({ nodeId: await node(command.path), attributeId: AttributeIds.Value });
        return { value: found.value.value && found.value.value.toString && found.value.dataType === DataType.NodeId ? found.value.value.toString() : plain(found.value) };
    },
    async write(command) {
        const status = await session.write({ nodeId: await node(command.path), attributeId: AttributeIds.Value,
            value: { value: { dataType: DataType[command.type], value: command.value } } });
        return { status: status.name };
    },
    async parts(command) {
        for (let number = command.first; number < command.first + command.count; number += 1) {
            say(await onePart(command.prefix, number));
            if (seen.length > 2000) seen.splice(0, 1000);
        }
        return { done: true };
    },
    async events() { return { events: seen.splice(0) }; },
    async heard(command) {
        return { event: await heard((one) => Object.entries(command.fits).every(([key, value]) => one[key] === value), command.limit_ms || 50000) };
    },
    async browse(command) {
        const found = await session.browse({ nodeId: await node(command.path), referenceTypeId: "HierarchicalReferences", includeSubtypes: true, resultMask: 63 });
        return { names: found.references.map((one) => one.browseName.name) };
    },
    async close() { await client.disconnect(); return {}; },
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
    const command = JSON.parse(line);
    try {
        say(await acts[command.act](command));
    } catch (error) {
        say({ failed: String(error.message || error) });
    }
    if (command.act === "close") process.exit(0);
}).on("close", () => process.exit(0));
