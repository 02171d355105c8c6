-- Sends a given number of requests for each thread, each with a target of its own, then is silent.
-- usage: wrk -s load.lua URL -- LIMIT PIPELINE
local threads = 0
function setup(thread)
    threads = threads + 1
    thread:set("id", threads)
end

function init(args)
    limit = tonumber(args[1])
    pipeline = tonumber(args[2])
    sent = 0
end

local function one()
    sent = sent + 1
    local target = "/load/" .. id .. "/" .. sent
    if sent % 3 == 0 then
        return wrk.format("POST", target, { ["X-Id"] = sent }, string.rep("body " .. sent .. " ", sent % 200))
    end
    return wrk.format("GET", target, { ["X-Id"] = sent })
end

function request()
    local all = ""
    for _ = 1, pipeline do
        all = all .. one()
    end
    return all
end

function delay()
    if sent >= limit then
        return 3600000
    end
    return 0
end
