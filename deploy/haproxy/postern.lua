-- Asks Postern about a request and carries out its answer: on 200 the request goes on with the identity headers of the
-- answer, anything else goes to the client as Postern said it (302, 303, 401, 403, 429, 503 with their headers and page).
--
-- HAProxy's own HTTP client does the asking, so nothing has to be installed. In haproxy.cfg:
--     lua-load /etc/haproxy/postern.lua
--     http-request lua.postern http://127.0.0.1:9091/api/authz/forward-auth
--     http-request deny deny_status 503 unless { var(txn.postern_permits) -m bool }

local TIMEOUT_MILLISECONDS = 10000

-- Of the client's request: what belongs to its connection or its body and would misdescribe the question.
local NOT_ASKED = {
    ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
    ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
}

-- Of Postern's answer: what belongs to its connection.
local NOT_ANSWERED = {
    ["connection"] = true, ["content-length"] = true, ["keep-alive"] = true, ["transfer-encoding"] = true,
}

-- Set from the answer, always: what the client sent under these names never goes on. Cookie and Authorization come back
-- without Postern's own.
local COPIED = {
    "remote-user", "remote-name", "remote-email", "remote-groups", "x-request-id", "traceparent", "x-postern-assertion",
    "cookie", "authorization",
}

-- Whether only a gate may set this header, in any spelling that some application reads as the same.
local function is_gates_own(name)
    local plain = name:lower():gsub("[^%w]", "-")
    return plain:find("^remote%-") or plain:find("^x%-postern%-") or plain:find("^x%-original%-")
        or plain == "proxy-authorization" or plain == "forwarded" or plain == "x-real-ip" or plain == "x-rewrite-url"
        or plain == "x-http-method" or plain == "x-http-method-override" or plain == "x-method-override"
end

-- HAProxy counts header values from 0 in requests and from 1 in answers of its client; this takes both, in order.
local function values(list)
    local all = {}
    for place = 0, 1000 do
        local value = list[place]
        if value ~= nil then
            all[#all + 1] = value
        elseif place > 0 then
            break
        end
    end
    return all
end

local function question(txn)
    local headers = {}
    for name, list in pairs(txn.http:req_get_headers()) do
        if not NOT_ASKED[name] then
            headers[name] = values(list)
        end
    end
    -- Or the client of HAProxy would say */* of its own, which makes a page load of an API call.
    headers["accept"] = headers["accept"] or { "" }
    headers["x-forwarded-method"] = { txn.f:method() }
    headers["x-forwarded-proto"] = { txn.f:ssl_fc() == 1 and "https" or "http" }
    headers["x-forwarded-host"] = { txn.f:req_fhdr("host") or "" }
    headers["x-forwarded-uri"] = { txn.f:pathq() }
    headers["x-forwarded-for"] = { txn.f:src() }
    return headers
end

local function permit(txn, answer)
    for name in pairs(txn.http:req_get_headers()) do
        if is_gates_own(name) then
            txn.http:req_del_header(name)
        end
    end
    for _, name in ipairs(COPIED) do
        local value = values(answer.headers[name] or {})[1]
        txn.http:req_del_header(name)
        if value ~= nil and value ~= "" then
            txn.http:req_add_header(name, value)
        end
    end
    txn:set_var("txn.postern_permits", true)
end

local function refuse(txn, answer)
    local reply = txn:reply({ status = answer.status, reason = answer.reason })
    for name, list in pairs(answer.headers or {}) do
        if not NOT_ANSWERED[name] then
            for _, value in ipairs(values(list)) do
                reply:add_header(name, value)
            end
        end
    end
    reply:set_body(answer.body or "")
    txn:done(reply)
end

core.register_action("postern", { "http-req" }, function(txn, url)
    txn:set_var("txn.postern_permits", false)
    local answer = core.httpclient():get({ url = url, headers = question(txn), timeout = TIMEOUT_MILLISECONDS })
    if answer ~= nil and answer.status == 200 then
        permit(txn, answer)
    elseif answer ~= nil and answer.status ~= nil and answer.status >= 300 and answer.status <= 599 then
        refuse(txn, answer)
    end
    -- Anything else is no answer: the rule after this one says 503.
end, 1)
