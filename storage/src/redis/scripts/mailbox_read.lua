-- Reads a page of a mailbox from its oldest entry, or from behind one, and notes that a delivery of each begins.
--
-- KEYS  1 the stream  2 its meta hash  3 and 4, which are not read: those of an enqueue, so that a Redis Cluster whose
--       keys move gives neither of the two before the other
-- ARGV  1 from: '-' or '(' and a stream id  2 max entries  3 bytes above which the page ends
--       4 bytes above which an entry is not given
-- gives the server's time in ms, whether there is more, and for each entry:
--       stream id, mark with this delivery counted, or nil, data or nil

redis.call('HLEN', KEYS[2])
local time = redis.call('TIME')
local page = {time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000)), 1}
local from, left, bytes = ARGV[1], tonumber(ARGV[2]), 0
local bytes_max, entry_bytes_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local marks = {}
while left > 0 and bytes < bytes_max do
    -- A few at a time: what is read beyond the page was read in vain.
    local want = math.min(left, 8)
    local entries = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', want)
    local ids, taken, noted = {}, 0, {}
    for nth, entry in ipairs(entries) do
        ids[nth] = entry[1]
    end
    if #ids > 0 then
        noted = redis.call('HMGET', KEYS[2], unpack(ids))
    end
    for nth, entry in ipairs(entries) do
        if bytes >= bytes_max then
            break
        end
        taken = taken + 1
        local id, fields, data = entry[1], entry[2], false
        for at = 1, #fields, 2 do
            if fields[at] == 'data' and #fields[at + 1] <= entry_bytes_max then
                data = fields[at + 1]
                bytes = bytes + #data
            end
        end
        local mark = noted[nth]
        local head, begun = string.match(mark or '', '^(.*:)(%d+)$')
        if head then
            mark = head .. string.format('%.0f', tonumber(begun) + 1)
            marks[#marks + 1] = id
            marks[#marks + 1] = mark
        end
        page[#page + 1] = id
        page[#page + 1] = mark
        page[#page + 1] = data
        from = '(' .. id
        left = left - 1
    end
    if taken < want then
        if taken == #entries then
            page[2] = 0
        end
        break
    end
end
if page[2] == 1 and #redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1) == 0 then
    page[2] = 0
end
if #marks > 0 then
    -- A server that takes no writes still gives mail; it does not remember that it did.
    redis.pcall('HSET', KEYS[2], unpack(marks))
end
return page
